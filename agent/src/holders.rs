//! Who has a chip's device node open, by the kernel's word: a process that has not made a context yet is on no list of the
//! driver's, but it has the node. Only root can ask this of everybody; others do without.

use crate::nvml;
use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, statx};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The vendor's own services, and display servers, which keep nodes open and never do anybody's work on them.
const SERVICES: [&str; 8] = [
    "nvidia-persistenced",
    "nv-hostengine",
    "nvidia-smi",
    "dcgm-exporter",
    "nv-fabricmanager",
    "nvidia-powerd",
    "Xorg",
    "Xwayland",
];

/// The first process never works on a chip, and some systems let nobody look at it.
const INIT: u32 = 1;

/// Where device nodes are found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceNodes {
    /// The driver's folder in `/proc`, which knows a chip's node by its PCI bus id.
    pub driver: PathBuf,
    /// The folder of the nodes.
    pub dev: PathBuf,
}

/// A device node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeviceNode {
    path: PathBuf,
    device: (u32, u32),
}

impl DeviceNodes {
    /// The machine's own, if this process may look at everybody's open files.
    pub fn of_machine() -> Option<DeviceNodes> {
        let all = DeviceNodes { driver: "/proc/driver/nvidia".into(), dev: "/dev".into() };
        rustix::process::geteuid().is_root().then_some(all)
    }

    /// The node of a chip of this vendor at this place on the PCI bus; none where the driver does not say or there is no such node.
    pub fn node_of(&self, vendor: &str, bus_id: Option<&str>) -> Option<DeviceNode> {
        if vendor != nvml::VENDOR {
            return None;
        }
        let information = self.driver.join("gpus").join(folder_of(bus_id?)?).join("information");
        let path = self.dev.join(format!("nvidia{}", minor_in(&fs::read_to_string(information).ok()?)?));
        let device = device(&path).ok()??;
        Some(DeviceNode { path, device })
    }
}

impl DeviceNode {
    /// Its numbers: major and minor.
    pub(crate) fn numbers(&self) -> (u32, u32) {
        self.device
    }

    /// Every process that has the node open or mapped, but for this one and the vendor's services.
    pub fn holders(&self) -> io::Result<Vec<u32>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if pid != std::process::id() && pid != INIT && self.is_held_by(&entry.path())? && !is_service(&entry.path())
            {
                found.push(pid);
            }
        }
        Ok(found)
    }

    fn is_held_by(&self, process: &Path) -> io::Result<bool> {
        let Some(files) = still_there(fs::read_dir(process.join("fd")))? else { return Ok(false) };
        for file in files {
            let Some(file) = still_there(file)? else { return Ok(false) };
            if still_there(device(&file.path()))?.flatten() == Some(self.device) {
                return Ok(true);
            }
        }
        let maps = still_there(fs::read(process.join("maps")))?.unwrap_or_default();
        let path = self.path.as_os_str().as_encoded_bytes();
        Ok(maps.split(|byte| *byte == b'\n').any(|line| line.ends_with(path)))
    }
}

/// The numbers of a character device; `None` for any other file. Never asks a file server that may be gone.
fn device(path: &Path) -> io::Result<Option<(u32, u32)>> {
    let found = statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::TYPE)?;
    let is_device = FileType::from_raw_mode(u32::from(found.stx_mode)) == FileType::CharacterDevice;
    Ok(is_device.then_some((found.stx_rdev_major, found.stx_rdev_minor)))
}

/// What is gone by the time it is looked at is no error: its process has ended or closed it.
fn still_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a process is one of the services that are let be.
pub(crate) fn is_service_pid(pid: u32) -> bool {
    is_service(Path::new(&format!("/proc/{pid}")))
}

fn is_service(process: &Path) -> bool {
    let program = fs::read_link(process.join("exe")).unwrap_or_default();
    program.file_name().and_then(OsStr::to_str).is_some_and(|name| SERVICES.contains(&name))
}

/// The driver's folder name for a bus id: the driver's library pads the domain to eight digits, its folders to four.
fn folder_of(bus_id: &str) -> Option<String> {
    let (domain, rest) = bus_id.split_once(':')?;
    Some(format!("{:04x}:{}", u32::from_str_radix(domain, 16).ok()?, rest.to_ascii_lowercase()))
}

fn minor_in(information: &str) -> Option<u32> {
    let line = information.lines().find_map(|line| line.strip_prefix("Device Minor:"))?;
    line.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    struct Ended(Child);

    impl Drop for Ended {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A node that is a device of another kind, of which this machine surely has one.
    fn nodes(folder: &Path) -> DeviceNodes {
        let gpu = folder.join("driver/gpus/0000:60:00.0");
        fs::create_dir_all(&gpu).expect("made");
        fs::write(gpu.join("information"), "Model: \t\t H20\nDevice Minor: \t 3\n").expect("written");
        fs::create_dir_all(folder.join("dev")).expect("made");
        std::os::unix::fs::symlink("/dev/full", folder.join("dev/nvidia3")).expect("linked");
        DeviceNodes { driver: folder.join("driver"), dev: folder.join("dev") }
    }

    #[test]
    fn a_process_that_has_the_node_open_is_found_until_it_ends() {
        let folder = tempfile::tempdir().expect("a folder");
        let node = nodes(folder.path()).node_of("nvidia", Some("00000000:60:00.0")).expect("a node");
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can look at everybody's open files");
            return;
        }
        let full = fs::File::options().write(true).open("/dev/full").expect("opened");
        let mut holder = Command::new("sleep");
        let holder = Ended(holder.arg("600").stdout(Stdio::from(full)).spawn().expect("a process"));
        let pid = holder.0.id();
        assert!(node.holders().expect("readable").contains(&pid));
        drop(holder);
        assert!(!node.holders().expect("readable").contains(&pid));
    }

    #[test]
    fn a_chip_whose_node_is_not_known_has_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let nodes = nodes(folder.path());
        assert_eq!(nodes.node_of("nvidia", None), None);
        assert_eq!(nodes.node_of("nvidia", Some("00000000:61:00.0")), None);
        assert_eq!(nodes.node_of("ascend", Some("00000000:60:00.0")), None);
        assert_eq!(folder_of("00000001:AF:00.0").as_deref(), Some("0001:af:00.0"));
    }
}
