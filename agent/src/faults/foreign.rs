//! Foreign processes: somebody uses a chip and no live lease accounts for it. They are named and told, and evicted only where
//! the configuration says so. Never judged by one reading: a process may be there before the orders that explain it.

use crate::reading::{ChipNow, NodeReading};
use crate::work::procs;
use chiptide_api::node::OrdersView;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;
use tokio::time::Instant;
use uuid::Uuid;

/// So many readings in a row must show a process.
const READINGS: u32 = 3;
/// How much of a command is told.
const COMMAND_MAX: usize = 120;

/// What is asked of the system about a process.
pub(crate) trait Processes {
    /// Whether it is a service of the machine, or anything else that is let be.
    fn is_service(&self, pid: u32) -> bool;
    /// Whether it runs in the cgroup of a lease.
    fn is_in_cgroup_of(&self, pid: u32, lease: Uuid) -> bool;
}

/// Processes that may be foreign, and in how many readings in a row they were.
#[derive(Clone, Debug, Default)]
pub(crate) struct Strangers {
    seen: BTreeMap<(String, u32), u32>,
    taken: Option<Instant>,
}

impl Strangers {
    /// The foreign processes of a reading: chip and pid. Each reading counts once.
    pub(crate) fn find(
        &mut self,
        reading: &NodeReading,
        orders: &OrdersView,
        system: &impl Processes,
    ) -> Vec<(String, u32)> {
        if self.taken.replace(reading.taken) == Some(reading.taken) {
            return Vec::new();
        }
        let listed =
            reading.chips.iter().flat_map(|now| now.reading.processes.iter().flatten().map(move |p| (now, p.pid)));
        let strange = listed.filter(|(now, pid)| is_strange(now, *pid, orders, system));
        let count = |(now, pid): (&ChipNow, u32)| {
            let key = (now.chip.id.clone(), pid);
            let before = self.seen.get(&key).copied().unwrap_or(0);
            (key, before + 1)
        };
        self.seen = strange.map(count).collect();
        self.seen.iter().filter(|(_, count)| **count >= READINGS).map(|(key, _)| key.clone()).collect()
    }
}

/// Whether nothing accounts for a process on a chip. What is left of an ended lease is the ladder's, until its chip is proven
/// vacant; who holds a chip and runs the work there without this agent may use any process.
fn is_strange(now: &ChipNow, pid: u32, orders: &OrdersView, system: &impl Processes) -> bool {
    let chip = &now.chip.id;
    if orders.vacate.iter().any(|order| order.chip == *chip) || system.is_service(pid) {
        return false;
    }
    let mut here = orders.leases.iter().filter(|lease| lease.chips.iter().any(|held| held.chip == *chip));
    match now.owners.get(&pid) {
        Some(owner) => !here.any(|lease| lease.lease == *owner),
        None => !here.any(|lease| lease.work.is_none() || system.is_in_cgroup_of(pid, lease.lease)),
    }
}

/// The machine's own processes.
pub(crate) struct Machine;

impl Processes for Machine {
    fn is_service(&self, pid: u32) -> bool {
        pid <= 1 || pid == std::process::id() || crate::holders::is_service_pid(pid)
    }

    fn is_in_cgroup_of(&self, pid: u32, lease: Uuid) -> bool {
        fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|path| path.contains(&lease.to_string()))
    }
}

/// Who a process is: user and command, as far as they can be read.
pub(crate) fn describe(pid: u32) -> String {
    let user = fs::metadata(format!("/proc/{pid}")).map(|meta| {
        let uid = meta.uid();
        let user = nix::unistd::User::from_uid(uid.into()).ok().flatten();
        user.map_or_else(|| uid.to_string(), |user| user.name)
    });
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command: String = String::from_utf8_lossy(&command).trim_end_matches('\0').chars().take(COMMAND_MAX).collect();
    let command: String = command.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match user {
        Ok(user) if command.is_empty() => format!("user {user}"),
        Ok(user) => format!("user {user}: {command}"),
        Err(_) => "of another namespace, or gone".to_owned(),
    }
}

/// Foreign processes that were told to go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evictions(BTreeMap<u32, (u64, Instant)>);

impl Evictions {
    /// SIGTERM to those that are new, SIGKILL to those that had `kill_after`. A pid that is somebody else's by now (another
    /// start time) begins anew; the signal goes to the very process that was looked at.
    pub(crate) fn carry_out(&mut self, strangers: &[u32], now: Instant, kill_after: Duration) -> Vec<(u32, Signal)> {
        self.0.retain(|pid, _| strangers.contains(pid));
        let mut sent = Vec::new();
        for &pid in strangers {
            let Some((handle, started)) = open(pid) else { continue };
            let (known, since) = *self.0.entry(pid).or_insert((started, now));
            let is_new = known != started || since == now;
            if known != started {
                self.0.insert(pid, (started, now));
            }
            let signal = match is_new {
                true => Signal::TERM,
                false if now.saturating_duration_since(since) >= kill_after => Signal::KILL,
                false => continue,
            };
            if pidfd_send_signal(&handle, signal).is_ok() {
                sent.push((pid, signal));
            }
        }
        sent
    }
}

/// A handle of the process, with the start time it had once the handle was held: no reuse of its pid fits both.
fn open(pid: u32) -> Option<(std::os::fd::OwnedFd, u64)> {
    if pid <= 1 || pid == std::process::id() {
        return None;
    }
    let handle = pidfd_open(Pid::from_raw(i32::try_from(pid).ok()?)?, PidfdFlags::empty()).ok()?;
    Some((handle, procs::started(pid)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::{chip, lease, reading_at, vacate};
    use chiptide_api::work::WorkOrder;

    struct Script;
    impl Processes for Script {
        fn is_service(&self, pid: u32) -> bool {
            pid == 77
        }
        fn is_in_cgroup_of(&self, pid: u32, lease: Uuid) -> bool {
            (pid, lease) == (78, Uuid::from_u128(1))
        }
    }

    /// Who is found foreign on `c0` after so many readings.
    fn found(now: &ChipNow, orders: &OrdersView, readings: u64) -> Vec<u32> {
        let (mut strangers, begun) = (Strangers::default(), Instant::now());
        let mut found = Vec::new();
        for at in 0..readings {
            found = strangers.find(&reading_at(begun + Duration::from_secs(at), [now.clone()]), orders, &Script);
        }
        found.into_iter().map(|(_, pid)| pid).collect()
    }

    fn run_by_agent() -> OrdersView {
        let work = WorkOrder {
            command: vec!["true".to_owned()],
            env: BTreeMap::new(),
            directory: None,
            run: 0,
            notice_signal: None,
            user: None,
            nodes: Vec::new(),
            replicas: Vec::new(),
        };
        let lease = chiptide_api::node::LeaseOrder { work: Some(work), ..lease(1, "c0", 1) };
        OrdersView { leases: vec![lease], ..OrdersView::default() }
    }

    #[test]
    fn a_process_on_a_free_chip_is_foreign_once_three_readings_agree() {
        let now = chip("c0").running(9, None).running(77, None);
        assert_eq!(found(&now, &OrdersView::default(), 2), [0; 0]);
        assert_eq!(found(&now, &OrdersView::default(), 3), [9]);
    }

    #[test]
    fn who_runs_the_work_without_the_agent_may_use_any_process_but_that_of_another_lease() {
        let orders = OrdersView { leases: vec![lease(1, "c0", 1)], ..OrdersView::default() };
        let now = chip("c0").running(7, Some(1)).running(8, Some(2)).running(9, None);
        assert_eq!(found(&now, &orders, 3), [8]);
    }

    #[test]
    fn under_a_workload_of_the_agents_a_process_must_name_its_lease_or_sit_in_its_cgroup() {
        let now = chip("c0").running(7, Some(1)).running(78, None).running(9, None);
        assert_eq!(found(&now, &run_by_agent(), 3), [9]);
    }

    #[test]
    fn what_an_ended_lease_left_behind_is_not_foreign() {
        let orders = OrdersView { vacate: vec![vacate(1, "c0", 1)], ..OrdersView::default() };
        assert_eq!(found(&chip("c0").running(7, Some(1)).running(9, None), &orders, 5), [0; 0]);
    }

    #[test]
    fn one_that_is_evicted_gets_a_term_and_later_a_kill() {
        let mut ignorant = std::process::Command::new("sh");
        let mut child = ignorant.args(["-c", "trap '' TERM; while :; do sleep 1; done"]).spawn().expect("a process");
        let (mut evictions, begun, pid) = (Evictions::default(), Instant::now(), child.id());
        let after = |secs| begun + Duration::from_secs(secs);
        let mut at = |secs| evictions.carry_out(&[pid], after(secs), Duration::from_secs(5));
        assert_eq!([at(0), at(3)], [vec![(pid, Signal::TERM)], vec![]]);
        assert_eq!(at(5), [(pid, Signal::KILL)]);
        child.wait().expect("it has ended");
        assert_eq!(evictions.carry_out(&[1, std::process::id()], begun, Duration::ZERO), []);
    }
}
