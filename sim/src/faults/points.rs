//! The fault points of daemon and agent: names that `FAILPOINTS` can give an action, in binaries built with the feature
//! `failpoints`. A test compares this list with the sources.

use super::world::World;
use rand::RngExt;
use rand::rngs::StdRng;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How long a process may take to come to its point.
const REACH_MAX: Duration = Duration::from_secs(6);

/// Points of the daemon: every write of a round's transaction, around its commit, and taking and keeping the lead.
pub const DAEMON: [&str; 26] = [
    "round-decided",
    "commit-before-begin",
    "commit-events",
    "commit-nodes",
    "commit-epochs",
    "commit-fleet",
    "commit-leases-ended",
    "commit-jobs-new",
    "commit-leases-new",
    "commit-holds-proven",
    "commit-holds-new",
    "commit-claims",
    "commit-evictions",
    "commit-work",
    "commit-answers",
    "commit-before-commit",
    "commit-after-commit",
    "round-committed",
    "round-applied",
    "round-answered",
    "round-woken",
    "lead-before-taking",
    "lead-taken",
    "lead-read",
    "lead-before-first-round",
    "lead-before-renewing",
];

/// Points of the agent and of its guardians: state on disk, orders, starts, the ladder, reports.
pub const AGENT: [&str; 26] = [
    "orders-received",
    "orders-kept",
    "orders-told",
    "state-written",
    "state-synced",
    "state-renamed",
    "start-folder-made",
    "start-cgroup-made",
    "start-record-kept",
    "start-before-guardian",
    "start-after-guardian",
    "guardian-locked",
    "guardian-not-fenced",
    "guardian-in-cgroup",
    "guardian-started",
    "guardian-started-kept",
    "guardian-saw-end",
    "guardian-end-kept",
    "ladder-fenced",
    "ladder-noticed",
    "ladder-terminated",
    "ladder-before-kill",
    "ladder-killed",
    "ladder-gone",
    "report-made",
    "report-accepted",
];

/// The standby is started so that it ends itself at the next point of the list, and the leader is killed: it takes over and
/// comes to the point. Answers the point, and whether it came there.
pub(super) async fn end_daemon(world: &mut World, rng: &mut StdRng) -> anyhow::Result<(&'static str, bool)> {
    let point = DAEMON[world.next_point.0 % DAEMON.len()];
    world.next_point.0 += 1;
    let leader = world.daemons.leader().await.unwrap_or(0);
    let standby = 1 - leader;
    world.daemons.one(standby).kill()?;
    world.daemons.one(standby).options().env = action(point, rng);
    world.daemons.one(standby).start_again()?;
    world.daemons.one(standby).options().env.clear();
    let begun = Instant::now();
    while !world.daemons.stands_by(standby).await && begun.elapsed() < REACH_MAX {
        sleep(Duration::from_millis(20)).await;
    }
    world.daemons.one(leader).kill()?;
    let begun = Instant::now();
    while !world.daemons.one(standby).has_ended() && begun.elapsed() < REACH_MAX {
        sleep(Duration::from_millis(20)).await;
    }
    let met = world.daemons.one(standby).has_ended();
    if !met {
        world.daemons.one(standby).kill()?;
    }
    world.daemons.one(standby).start_again()?;
    world.daemons.one(leader).start_again()?;
    Ok((point, met))
}

/// The same for an agent. A guardian that ends itself leaves its agent alive, and nobody here sees it.
pub(super) async fn end_agent(world: &mut World, rng: &mut StdRng) -> anyhow::Result<(&'static str, bool)> {
    let point = AGENT[world.next_point.1 % AGENT.len()];
    world.next_point.1 += 1;
    let index = rng.random_range(0..world.nodes.len());
    world.nodes[index].kill()?;
    world.nodes[index].set_env(action(point, rng));
    world.tend()?;
    world.nodes[index].set_env(Vec::new());
    let (begun, mut met) = (Instant::now(), false);
    let longest = if point.starts_with("ladder-") { REACH_MAX * 3 } else { REACH_MAX };
    while !met && begun.elapsed() < longest {
        met = world.nodes[index].has_ended();
        sleep(Duration::from_millis(20)).await;
    }
    world.nodes[index].kill()?;
    world.tend()?;
    Ok((point, met))
}

/// The process ends at the point, the first time it comes there or a later one.
fn action(point: &str, rng: &mut StdRng) -> Vec<(String, String)> {
    // A life comes to the points of taking the lead once, and to the rungs of the ladder seldom.
    let is_seldom = point.starts_with("lead-") || point.starts_with("ladder-");
    let passes = if is_seldom { 0 } else { rng.random_range(0..3) };
    let action = match passes {
        0 => format!("{point}=return"),
        passes => format!("{point}={passes}*off->return"),
    };
    vec![("FAILPOINTS".into(), action)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    fn in_sources(folder: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(folder).expect("sources").flatten() {
            if entry.path().is_dir() {
                in_sources(&entry.path(), found);
            } else {
                let text = fs::read_to_string(entry.path()).unwrap_or_default();
                let names = text.split("fault_point::reach(\"").skip(1).filter_map(|rest| rest.split('"').next());
                found.extend(names.map(str::to_owned));
            }
        }
    }

    #[test]
    fn the_lists_are_those_of_the_sources() {
        for (room, listed) in [("daemon", &DAEMON), ("agent", &AGENT)] {
            let mut found = BTreeSet::new();
            in_sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(room).join("src"), &mut found);
            assert_eq!(found, listed.iter().map(|point| (*point).to_owned()).collect(), "{room}");
        }
    }
}
