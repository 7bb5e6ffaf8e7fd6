//! Reports as JSON files: field names are stable, so that another program can read them.

use anyhow::Context;
use serde::Serialize;
use std::path::Path;

/// Writes a report.
pub fn write(path: &Path, report: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(report).context("turn the report into JSON")?;
    text.push('\n');
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// Writes a report where one is wanted.
pub fn write_if(path: Option<&Path>, report: &impl Serialize) -> anyhow::Result<()> {
    path.map_or(Ok(()), |path| write(path, report))
}
