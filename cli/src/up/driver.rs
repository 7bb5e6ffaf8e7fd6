//! Whether this machine has real chips.

use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// Where distributions and container runtimes put the driver's library.
const LIBRARY_DIRS: [&str; 5] =
    ["usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib64", "usr/lib", "usr/local/nvidia/lib64"];

/// What the machine's real chips answer by: the loaded NVIDIA driver, or the library that the agent is told to use. The
/// driver's library alone proves nothing: images carry it without a driver.
pub(crate) fn find() -> Option<String> {
    if std::env::var_os("CHIPTIDE_AGENT_NVML_LIBRARY").is_some_and(|path| !path.is_empty()) {
        return Some("the library that CHIPTIDE_AGENT_NVML_LIBRARY names".to_owned());
    }
    find_below(Path::new("/"))
}

fn find_below(root: &Path) -> Option<String> {
    let text = fs::read_to_string(root.join("proc/driver/nvidia/version")).ok();
    let version = text.as_deref().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("NVRM version:"))?;
        line.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'))
    });
    if let Some(version) = version {
        return Some(format!("NVIDIA driver {version}"));
    }
    // Some containers hide that file: the device node with the library beside it means the same.
    let library = LIBRARY_DIRS.iter().any(|dir| root.join(dir).join("libnvidia-ml.so.1").exists());
    (library && root.join("dev/nvidiactl").exists()).then(|| "an NVIDIA driver".to_owned())
}

/// This machine's name, as its node's.
pub(crate) fn hostname() -> Result<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").context("read the host's name")?;
    Ok(name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loaded_driver_is_told_from_a_mere_library() {
        let root = tempfile::tempdir().expect("a directory");
        let at = |path: &str| root.path().join(path);
        assert_eq!(find_below(root.path()), None);
        fs::create_dir_all(at("usr/lib64")).expect("made");
        fs::write(at("usr/lib64/libnvidia-ml.so.1"), "").expect("written");
        assert_eq!(find_below(root.path()), None, "an image without a driver");
        fs::create_dir_all(at("dev")).expect("made");
        fs::write(at("dev/nvidiactl"), "").expect("written");
        assert_eq!(find_below(root.path()).as_deref(), Some("an NVIDIA driver"));
        fs::create_dir_all(at("proc/driver/nvidia")).expect("made");
        let text = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n";
        fs::write(at("proc/driver/nvidia/version"), text).expect("written");
        assert_eq!(find_below(root.path()).as_deref(), Some("NVIDIA driver 550.54.15"));
    }
}
