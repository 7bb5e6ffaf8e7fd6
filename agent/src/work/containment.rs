//! How workloads are kept together on this machine, decided once at start and said: in cgroups of their own where a
//! hierarchy can be written, in process groups where the configuration allows that much less, or not run at all.

use super::cgroup::Cgroup;
use super::record::Key;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

/// How workloads are kept together.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Containment {
    /// Each in a cgroup of its own, below this one.
    Cgroups(Hierarchy),
    /// Each in a process group of its own; what leaves it is found by its ancestors and by its environment.
    Groups,
    /// Not at all, and why.
    Refused(String),
}

/// The cgroup that holds those of all workloads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hierarchy {
    root: PathBuf,
    limits_cpu: bool,
    limits_memory: bool,
}

impl Containment {
    /// What this machine and its configuration allow. `root` is the cgroup to use; `chiptide` in the machine's own
    /// hierarchy when absent.
    pub fn decide(root: Option<&Path>, process_groups: bool) -> Containment {
        let root = match root.map(Path::to_owned).or_else(|| Some(mount_of_cgroup2()?.join("chiptide"))) {
            Some(root) => Hierarchy::open(root),
            None => Err("no cgroup2 hierarchy is mounted".to_owned()),
        };
        match root {
            Ok(hierarchy) => Containment::Cgroups(hierarchy),
            Err(_) if process_groups => Containment::Groups,
            Err(why) => Containment::Refused(format!("{why}, and process_groups is not set")),
        }
    }
}

impl fmt::Display for Containment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Containment::Cgroups(hierarchy) => {
                let limits = match (hierarchy.limits_cpu, hierarchy.limits_memory) {
                    (true, true) => "cpu and memory limits",
                    (true, false) => "cpu limits, but no memory controller",
                    (false, true) => "memory limits, but no cpu controller",
                    (false, false) => "no limits: neither the cpu nor the memory controller is to be had",
                };
                write!(f, "workloads run in cgroups below {}, with {limits}", hierarchy.root.display())
            }
            Containment::Groups => f.write_str("workloads run in process groups, without limits"),
            Containment::Refused(why) => write!(f, "workloads are refused: {why}"),
        }
    }
}

impl Hierarchy {
    fn open(root: PathBuf) -> Result<Hierarchy, String> {
        let fails = |what: &str, error: io::Error| format!("cannot {what} {}: {error}", root.display());
        let cgroup = Cgroup::at(root.clone());
        cgroup.make().map_err(|error| fails("make the cgroup", error))?;
        if !root.join("cgroup.kill").exists() {
            return Err(format!("{} has no cgroup.kill (not a cgroup2, or a kernel before 5.14)", root.display()));
        }
        let probe = Cgroup::at(root.join("probe"));
        let probed = probe.make().and_then(|()| probe.remove());
        probed.map_err(|error| fails("write to", error))?;
        let enabled = |name: &str| {
            // The parent's part may be done already, or not ours to do.
            let _ = root.parent().map(|parent| fs::write(parent.join("cgroup.subtree_control"), format!("+{name}")));
            cgroup.set("cgroup.subtree_control", &format!("+{name}")).is_ok()
        };
        let (limits_cpu, limits_memory) = (enabled("cpu"), enabled("memory"));
        Hierarchy { root: root.clone(), limits_cpu, limits_memory }.with_guards().map_err(|e| fails("write to", e))
    }

    fn with_guards(self) -> io::Result<Hierarchy> {
        self.guards().make().map(|()| self)
    }

    /// Where guardians stay: not in the agent's own cgroup, which may be killed with the agent.
    pub(crate) fn guards(&self) -> Cgroup {
        Cgroup::at(self.root.join("guards"))
    }

    /// The cgroup of a replica.
    pub(crate) fn of(&self, key: Key) -> Cgroup {
        Cgroup::at(self.root.join(key.to_string()))
    }

    /// Makes the cgroup of a replica with these limits, where they can be had; 0 is no limit.
    pub(crate) fn make(&self, key: Key, cpu_milli: u64, memory_mib: u64) -> io::Result<Cgroup> {
        const PERIOD_US: u64 = 100_000;
        let cgroup = self.of(key);
        cgroup.make()?;
        if self.limits_cpu && cpu_milli > 0 {
            let quota = (cpu_milli.saturating_mul(PERIOD_US) / 1000).max(1000);
            cgroup.set("cpu.max", &format!("{quota} {PERIOD_US}"))?;
        }
        if self.limits_memory && memory_mib > 0 {
            cgroup.set("memory.max", &memory_mib.saturating_mul(1024 * 1024).to_string())?;
            // A replica that has lost one of its processes to the kernel is no replica: all of it goes at once.
            cgroup.set("memory.oom.group", "1")?;
        }
        Ok(cgroup)
    }

    /// Every replica that has a cgroup here.
    pub(crate) fn keys(&self) -> io::Result<Vec<Key>> {
        let names = fs::read_dir(&self.root)?.map(|entry| Ok(entry?.file_name().to_string_lossy().parse::<Key>().ok()));
        names.filter_map(io::Result::transpose).collect()
    }
}

/// Where the kernel's cgroup2 hierarchy is mounted.
fn mount_of_cgroup2() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = |line: &str| {
        // … mount point is the fifth field; after " - " comes the type.
        let (left, right) = line.split_once(" - ")?;
        right.starts_with("cgroup2 ").then(|| left.split(' ').nth(4).map(PathBuf::from))?
    };
    mounts.lines().find_map(mount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_hierarchy_it_refuses_or_makes_do_as_configured() {
        let plain = tempfile::tempdir().expect("a folder");
        let root = plain.path().join("root");
        let refused = Containment::decide(Some(&root), false).to_string();
        assert!(refused.starts_with("workloads are refused") && refused.contains("cgroup.kill"), "{refused}");
        assert_eq!(Containment::decide(Some(&root), true), Containment::Groups);
    }
}
