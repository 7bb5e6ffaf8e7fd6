//! Small files that others wait for: they are seen whole or not at all.

use std::io::{Result, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Writes one line into a file of this mode, by way of a draft beside it that is renamed into place.
pub fn write(file: &Path, line: &str, mode: u32) -> Result<()> {
    let draft = file.with_extension("new");
    let mut out = std::fs::OpenOptions::new().create(true).write(true).truncate(true).mode(mode).open(&draft)?;
    writeln!(out, "{line}")?;
    out.sync_all()?;
    std::fs::rename(&draft, file)
}
