//! Where `chiptide up` keeps things, and where the other commands look for its token.

use anyhow::{Context, Result};
use nix::unistd::Uid;
use std::path::PathBuf;

/// The file with the admin token, below the data directory.
pub(crate) const TOKEN_FILE: &str = "admin-token";

/// The data directory when none is named: root's under /var/lib, because the database's account cannot pass through
/// root's home; anybody else's with the other state of their programs.
pub(crate) fn data_dir() -> Result<PathBuf> {
    if Uid::effective().is_root() {
        return Ok(PathBuf::from("/var/lib/chiptide"));
    }
    let state = std::env::var_os("XDG_STATE_HOME").filter(|dir| !dir.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let state =
        state.or_else(home).context("neither XDG_STATE_HOME nor HOME is set; name a directory with --data-dir")?;
    Ok(state.join("chiptide"))
}
