//! What a return of the fleet came to. Its times are the event log's: from the new leader's takeover to the commit that
//! counts a node as heard.

use crate::audit::Entry;
use crate::latency::{Latencies, LatencySummary};
use crate::machine::{Machine, ProcessMemory};
use chiptide_model::{Event, NodeId};
use serde::Serialize;
use std::collections::BTreeSet;
use std::time::Duration;

/// How a fleet came back.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct ReconnectReport {
    /// Where it ran.
    pub machine: Machine,
    /// Nodes, each with an agent.
    pub nodes: u64,
    /// Their chips.
    pub chips: u64,
    /// Seconds the daemon was away before it was started again.
    pub down_s: u64,
    /// Whether the agents kept their sessions; else each had to register.
    pub sessions_kept: bool,
    /// From the start of the new daemon to ready, milliseconds.
    pub ready_ms: u64,
    /// From the takeover to a node being back, over all nodes.
    pub back: LatencySummary,
    /// Nodes that came back.
    pub nodes_back: u64,
    /// Registrations.
    pub registrations: u64,
    /// Leases before.
    pub leases: u64,
    /// Of those, gone afterwards.
    pub leases_lost: u64,
    /// Nodes called silent after the takeover; none was.
    pub called_silent: u64,
    /// Requests and connections that the daemon refused because too many came at once.
    pub shed: u64,
    /// CPU seconds of the daemon, from ready to the last node.
    pub daemon_cpu_s: f64,
    /// Memory of the daemon.
    pub daemon_memory: ProcessMemory,
}

impl ReconnectReport {
    /// Whether all are back, no lease was lost, and nobody was called silent.
    pub fn is_clean(&self) -> bool {
        self.nodes_back == self.nodes && self.leases_lost == 0 && self.called_silent == 0
    }

    /// Reads who came back when, after the last takeover in the log.
    pub fn read_log(&mut self, log: &[Entry]) {
        let takeover = log.iter().rposition(|entry| matches!(entry.event, Event::LeaderTookOver { .. }));
        let Some(takeover) = takeover else { return };
        let (mut back, mut seen): (Latencies, BTreeSet<&NodeId>) = Default::default();
        for entry in &log[takeover..] {
            match &entry.event {
                Event::NodeRegistered { node, .. } | Event::NodeHeard { node } => {
                    self.registrations += u64::from(matches!(entry.event, Event::NodeRegistered { .. }));
                    if seen.insert(node) {
                        let took_ms = entry.at_ms - log[takeover].at_ms;
                        back.record(Duration::from_millis(u64::try_from(took_ms).unwrap_or(0)));
                    }
                }
                Event::NodeSilent { .. } => self.called_silent += 1,
                _ => {}
            }
        }
        (self.back, self.nodes_back) = (back.summary(), seen.len() as u64);
    }

    /// For people.
    pub fn table(&self) -> comfy_table::Table {
        let sessions = if self.sessions_kept { "sessions kept" } else { "every session dropped" };
        crate::table::of([
            ("fleet", format!("{} nodes, {} chips; {sessions}, {} s away", self.nodes, self.chips, self.down_s)),
            ("daemon ready again", format!("{} ms", self.ready_ms)),
            ("back after the takeover", self.back.to_string()),
            ("nodes back", format!("{}, {} registrations", self.nodes_back, self.registrations)),
            ("leases", format!("{}, {} lost", self.leases, self.leases_lost)),
            ("called silent", self.called_silent.to_string()),
            ("refused as too much", self.shed.to_string()),
            ("daemon", format!("{:.1} s of CPU, {} MiB at most", self.daemon_cpu_s, self.daemon_memory.peak_mib)),
            ("machine", self.machine.to_string()),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at_ms: i64, event: Event) -> Entry {
        Entry { seq: at_ms, at_ms, leader_epoch: 1, event }
    }

    fn heard(name: &str) -> Event {
        Event::NodeHeard { node: NodeId::new(name).expect("a name") }
    }

    #[test]
    fn nodes_count_once_and_from_the_last_takeover() {
        let log = [
            entry(1, Event::LeaderTookOver { epoch: 1 }),
            entry(2, heard("n1")),
            entry(10, Event::LeaderTookOver { epoch: 2 }),
            entry(40, heard("n1")),
            entry(60, heard("n1")),
            entry(110, heard("n2")),
        ];
        let mut report = ReconnectReport { nodes: 2, ..ReconnectReport::default() };
        report.read_log(&log);
        assert_eq!((report.nodes_back, report.back.count, report.back.max_ms.map(f64::round)), (2, 2, Some(100.0)));
        assert!(report.is_clean());
        report.read_log(
            &[&log[..], &[entry(120, Event::NodeSilent { node: NodeId::new("n1").expect("a name") })]].concat(),
        );
        assert!(!report.is_clean(), "a node was called silent");
    }
}
