//! Starting a replica: its folder, its cgroup, its record on disk, and then its guardian.

use super::containment::Containment;
use super::deadline::Deadlines;
use super::devices::{DeviceLimits, Fitted};
use super::expiry::Expiry;
use super::guard::FLAG;
use super::ladder::Bounds;
use super::record::{Folder, Key, Record};
use super::wish::WantedLease;
use crate::fault_point;
use anyhow::{Context, bail, ensure};
use chiptide_api::work::ReplicaOrder;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use uuid::Uuid;

/// Who workloads run as.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct User {
    /// The name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Every group it is in, the one above among them.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: PathBuf,
}

impl User {
    /// The user of this name, for jobs to name: never root, and none that the system's own services run as.
    pub fn for_jobs(name: &str) -> anyhow::Result<User> {
        /// Below are the users of the system's own services.
        const FIRST: u32 = 1000;
        let user = User::named(name)?;
        ensure!(user.uid >= FIRST && user.gid != 0, "workload_users: {name} is a user of the system ({})", user.uid);
        Ok(user)
    }

    /// The user of this name on this machine.
    pub fn named(name: &str) -> anyhow::Result<User> {
        let found = nix::unistd::User::from_name(name).with_context(|| format!("look up the user {name}"))?;
        let user = found.with_context(|| format!("there is no user {name}"))?;
        let c_name = CString::new(user.name.as_str()).with_context(|| format!("the user {name}"))?;
        let groups = nix::unistd::getgrouplist(&c_name, user.gid).with_context(|| format!("the groups of {name}"))?;
        let groups = groups.into_iter().map(nix::unistd::Gid::as_raw).collect();
        Ok(User { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw(), groups, home: user.dir })
    }
}

/// How workloads are run on this node.
#[derive(Clone, Debug)]
pub struct WorkOptions {
    /// How they are kept together.
    pub containment: Containment,
    /// The agent's state directory.
    pub state_dir: PathBuf,
    /// The kernel's boot id.
    pub boot_id: String,
    /// Who they run as; the agent's own user when absent.
    pub user: Option<User>,
    /// Whom else jobs may name to run as.
    pub users: Vec<User>,
    /// How those in cgroups are kept from the chips of others; not at all when absent.
    pub device_limits: Option<DeviceLimits>,
    /// How long the steps of an eviction may take.
    pub bounds: Bounds,
    /// How long the first replica that fails rests before it is started anew; each later one twice as long.
    pub restart_after: Duration,
    /// How much of each of stdout and stderr is kept.
    pub output_bytes_max: u64,
    /// The binary that guards them: the agent's own.
    pub guardian: PathBuf,
}

impl WorkOptions {
    /// The folder of a replica.
    pub(crate) fn folder(&self, key: Key) -> Folder {
        Folder::at(self.state_dir.join("work").join(key.to_string()))
    }

    /// Writes down what is to be started. Nothing runs yet.
    pub(crate) fn prepare(
        &self,
        key: Key,
        wanted: &WantedLease,
        replica: &ReplicaOrder,
        chips: &BTreeMap<String, Fitted>,
    ) -> anyhow::Result<Record> {
        if let Containment::Refused(why) = &self.containment {
            bail!("this agent runs no workloads: {why}");
        }
        let folder = self.folder(key);
        let user = self.user_of(wanted)?;
        let mut env = self.environment(key, wanted, user, &folder);
        env.extend(binding(&replica.chips, chips)?);
        fs::create_dir_all(folder.scratch()).context("make its folder")?;
        if let Some(user) = user {
            chown(folder.scratch(), Some(user.uid), Some(user.gid)).context("give it its folder")?;
        }
        fault_point::reach("start-folder-made");
        let cgroups = match &self.containment {
            Containment::Cgroups(hierarchy) => {
                let own = hierarchy.make(key, replica.cpu_milli, replica.memory_mib).context("make its cgroup")?;
                if let Some(limits) = &self.device_limits {
                    // The whole lease's: the replicas of a gang reach into each other's chips.
                    let replicas = wanted.work.replicas.iter();
                    let of_lease: Vec<String> = replicas.flat_map(|replica| replica.chips.clone()).collect();
                    limits.put_on(&own, &of_lease, chips)?;
                }
                Some((own, hierarchy.guards()))
            }
            Containment::Groups | Containment::Refused(_) => None,
        };
        let record = Record {
            key,
            run: wanted.work.run,
            boot_id: self.boot_id.clone(),
            chips: replica.chips.clone(),
            cgroups,
            command: wanted.work.command.clone(),
            env,
            directory: wanted.work.directory.as_ref().map_or_else(|| folder.scratch(), PathBuf::from),
            user: user.map(|user| (user.uid, user.gid)),
            groups: user.map(|user| user.groups.clone()).unwrap_or_default(),
            notice_signal: wanted.work.notice_signal.as_deref().and_then(|name| name.parse().ok()),
            output_bytes_max: self.output_bytes_max,
            expiry: self.expiry(key, wanted)?,
        };
        fault_point::reach("start-cgroup-made");
        folder.keep_record(&record)?;
        fault_point::reach("start-record-kept");
        Ok(record)
    }

    /// When the guardian ends the work by itself. The deadline is written before the work is started.
    fn expiry(&self, key: Key, wanted: &WantedLease) -> anyhow::Result<Option<Expiry>> {
        let Some(kill) = wanted.fence_kill else { return Ok(None) };
        let file = self.deadlines().context("make the folder of deadlines")?.file(key.lease);
        let kill_after = kill.min(self.bounds.kill_after);
        Ok(Some(Expiry { file, kill_after_ms: u64::try_from(kill_after.as_millis()).unwrap_or(u64::MAX) }))
    }

    /// The deadlines of fenced leases.
    pub(crate) fn deadlines(&self) -> std::io::Result<Deadlines> {
        Deadlines::below(&self.state_dir, &self.boot_id)
    }

    /// Starts the guardian of what was written down.
    pub(crate) fn start(&self, key: Key) -> anyhow::Result<Child> {
        let folder = self.folder(key);
        let log = File::create(folder.path().join("guardian.log")).context("make the guardian's log")?;
        let mut command = Command::new(&self.guardian);
        command.arg(FLAG).arg(folder.path()).env_clear().process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        #[cfg(feature = "failpoints")]
        command.envs(std::env::var_os("FAILPOINTS").map(|points| ("FAILPOINTS", points)));
        fault_point::reach("start-before-guardian");
        let guardian = command.spawn().context("start its guardian");
        fault_point::reach("start-after-guardian");
        guardian
    }

    /// Who it runs as: whom its job names, if that is allowed here.
    fn user_of(&self, wanted: &WantedLease) -> anyhow::Result<Option<&User>> {
        let Some(name) = &wanted.work.user else { return Ok(self.user.as_ref()) };
        let known = self.user.iter().chain(&self.users).find(|user| user.name == *name);
        known
            .map(Some)
            .with_context(|| format!("this node lets no work run as {name}: workload_users does not name it"))
    }

    fn environment(
        &self,
        key: Key,
        wanted: &WantedLease,
        user: Option<&User>,
        folder: &Folder,
    ) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        let mut set = |name: &str, value: String| drop(env.insert(name.to_owned(), value));
        set("PATH", std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned()));
        if let Some(user) = user {
            set("USER", user.name.clone());
            set("HOME", user.home.display().to_string());
        }
        if let Some(first) = wanted.work.nodes.first() {
            set("MASTER_ADDR", first.clone());
            set("MASTER_PORT", port_of(key.lease).to_string());
        }
        for (name, value) in &wanted.work.env {
            set(name, value.clone());
        }
        set("CHIPTIDE_JOB_ID", wanted.job.to_string());
        set("CHIPTIDE_LEASE_ID", key.lease.to_string());
        set("CHIPTIDE_LEASE_EPOCH", wanted.epoch.to_string());
        set("CHIPTIDE_RANK", key.rank.to_string());
        set("CHIPTIDE_RUN", wanted.work.run.to_string());
        let here: BTreeSet<u32> = wanted.work.replicas.iter().map(|replica| replica.rank).collect();
        set("CHIPTIDE_LOCAL_RANK", here.range(..key.rank).count().to_string());
        set("CHIPTIDE_WORLD_SIZE", wanted.work.nodes.len().to_string());
        set("CHIPTIDE_NODES", wanted.work.nodes.join(","));
        set("CHIPTIDE_NOTICE_FILE", folder.notice().display().to_string());
        env
    }
}

/// Where the gang may meet: any two gangs that share a node are unlikely to share a port, and all replicas of one agree on
/// it without a word. Above the ports that programs listen on, below those that connections are given.
fn port_of(lease: Uuid) -> u16 {
    let bytes = lease.as_bytes();
    20_000 + u16::from_le_bytes([bytes[14], bytes[15]]) % 10_000
}

/// The variable by which a vendor's runtime is told which chips to use, for vendors that take chip ids in it.
fn variable_of(vendor: &str) -> Option<&'static str> {
    match vendor {
        "nvidia" => Some("CUDA_VISIBLE_DEVICES"),
        "amd" => Some("ROCR_VISIBLE_DEVICES"),
        _ => None,
    }
}

/// What binds a replica to its chips.
fn binding(chips: &[String], known: &BTreeMap<String, Fitted>) -> anyhow::Result<BTreeMap<String, String>> {
    let mut bound: BTreeMap<String, String> = BTreeMap::new();
    for chip in chips {
        let vendor = &known.get(chip).with_context(|| format!("the chip {chip} is not there"))?.vendor;
        let variable = variable_of(vendor).with_context(|| format!("no way is known to bind chips of {vendor}"))?;
        let ids = bound.entry(variable.to_owned()).or_default();
        if !ids.is_empty() {
            ids.push(',');
        }
        ids.push_str(chip);
    }
    Ok(bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chips_are_bound_by_id_and_those_that_cannot_be_are_refused() {
        let fitted = |vendor: &str| Fitted { vendor: vendor.to_owned(), bus_id: None };
        let vendors: BTreeMap<String, Fitted> =
            [("a", "nvidia"), ("b", "nvidia"), ("x", "ascend")].map(|(c, v)| (c.to_owned(), fitted(v))).into();
        let bound = binding(&["b".into(), "a".into()], &vendors).expect("known");
        assert_eq!(bound, BTreeMap::from([("CUDA_VISIBLE_DEVICES".to_owned(), "b,a".to_owned())]));
        assert!(binding(&["x".into()], &vendors).expect_err("by index").to_string().contains("ascend"));
        assert!(binding(&["gone".into()], &vendors).is_err());
    }
}
