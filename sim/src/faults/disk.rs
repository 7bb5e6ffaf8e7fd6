//! A small disk of a run's own: a file system in memory that can be made as small as what is on it, and large again. Mounting
//! one takes root; where that may not be there is none, and what needs it is skipped.

use anyhow::{Context, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted disk. Dropping it unmounts it, unless it is to be kept; the folder stays.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    size_mib: u64,
    keep: bool,
}

impl Disk {
    /// Mounts one on this folder, which is made; `None` where that is not permitted.
    pub fn mount(path: &Path, size_mib: u64) -> anyhow::Result<Option<Disk>> {
        std::fs::create_dir_all(path).with_context(|| format!("make {}", path.display()))?;
        let size = format!("size={size_mib}m,mode=0711");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(path).output();
        Ok(mounted.is_ok_and(|mounted| mounted.status.success()).then(|| Disk {
            path: path.to_owned(),
            size_mib,
            keep: false,
        }))
    }

    /// Leaves no room on it.
    pub fn fill(&self) -> anyhow::Result<()> {
        // What is written between the look and the act makes it too small to be.
        for _ in 0..20 {
            let seen = rustix::fs::statvfs(&self.path).context("look at the disk")?;
            if self.resize((seen.f_blocks - seen.f_bfree) * seen.f_frsize).is_ok() {
                return Ok(());
            }
        }
        self.resize(0).context("fill the disk")
    }

    /// Makes room again.
    pub fn free(&self) -> anyhow::Result<()> {
        self.resize(self.size_mib << 20)
    }

    /// Leaves it mounted behind.
    pub fn keep(&mut self) {
        self.keep = true;
    }

    fn resize(&self, bytes: u64) -> anyhow::Result<()> {
        let size = format!("remount,size={}", bytes.max(4096));
        let done = Command::new("mount").args(["-o", &size]).arg(&self.path).output().context("run mount")?;
        let said = String::from_utf8_lossy(&done.stderr);
        ensure!(done.status.success(), "resize {}: {}", self.path.display(), said.trim());
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.keep {
            return eprintln!("still mounted: {}", self.path.display());
        }
        // Lazily: what is still open on it goes with those who have it open.
        if !Command::new("umount").arg("-l").arg(&self.path).status().is_ok_and(|status| status.success()) {
            eprintln!("could not unmount {}", self.path.display());
        }
    }
}
