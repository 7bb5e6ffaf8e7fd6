//! The newest report of every node: latest values in memory, never in a round.

use crate::workloads::{Said, Told};
use chiptide_allocator::Cluster;
use chiptide_api::chip::{Reading, ReadingView};
use chiptide_api::node::{RefusedBody, ReportBody};
use chiptide_api::work::{LadderReport, WorkReport};
use chiptide_model::{LadderStep, LeaseId, NodeId, SessionId, Timestamp};
use parking_lot::RwLock;
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tracing::error;
use uuid::Uuid;

/// What a node last said.
#[derive(Debug)]
struct Latest {
    session: SessionId,
    seq: u64,
    heard: Instant,
    at: Timestamp,
    readings: FxHashMap<String, Reading>,
    refused: BTreeSet<RefusedBody>,
    work: Vec<WorkReport>,
}

/// What became of a report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Taken {
    /// False if it is not newer than the last of its session, and so was ignored.
    pub accepted: bool,
    /// Whether its node has been declared silent and the ledger has not come to rest about that: the report has to go
    /// through a round, before which or after which the node is silent.
    pub declared_silent: bool,
}

#[derive(Debug, Default)]
struct Nodes {
    latest: FxHashMap<NodeId, Latest>,
    /// When those asked to register whose answer is not noted yet. A round makes a node known before its handler gets to
    /// note that: looked at in between, it would seem never to have been heard.
    registering: FxHashMap<NodeId, Instant>,
    declared_silent: FxHashSet<NodeId>,
}

/// Newest reports by node.
#[derive(Debug, Default)]
pub struct Telemetry {
    nodes: RwLock<Nodes>,
    /// How many steps with which leases are in the log, as far as this daemon knows and their nodes still tell them.
    ladders: RwLock<FxHashMap<NodeId, Vec<(Uuid, usize)>>>,
}

impl Telemetry {
    /// Takes a report in.
    pub fn accept(&self, node: &NodeId, report: &ReportBody, at: Timestamp, heard: Instant) -> Taken {
        let session = SessionId(report.session);
        let mut nodes = self.nodes.write();
        let declared_silent = nodes.declared_silent.contains(node);
        let nodes = &mut nodes.latest;
        if nodes.get(node).is_some_and(|last| last.session == session && report.seq <= last.seq) {
            return Taken { accepted: false, declared_silent };
        }
        let readings = report.chips.iter().map(|chip| (chip.id.clone(), chip.reading.clone())).collect();
        let refused: BTreeSet<RefusedBody> = report.refused.iter().cloned().collect();
        let said = nodes.get(node).map(|last| &last.refused);
        for grant in refused.iter().filter(|grant| said.is_none_or(|said| !said.contains(grant))) {
            error!(node = %node, lease = %grant.lease, chip = %grant.chip, epoch = grant.epoch, seen = grant.seen,
                "a grant is refused by its node, which has seen a newer epoch: has the database lost commits?");
        }
        nodes.insert(
            node.clone(),
            Latest { session, seq: report.seq, heard, at, readings, refused, work: report.work.clone() },
        );
        Taken { accepted: true, declared_silent }
    }

    /// A report whose news could not be written may come again as it was.
    pub fn may_repeat(&self, node: &NodeId, report: &ReportBody) {
        if let Some(latest) = self.nodes.write().latest.get_mut(node)
            && (latest.session, latest.seq) == (SessionId(report.session), report.seq)
        {
            latest.seq = report.seq.saturating_sub(1);
        }
    }

    /// Whether a node tells more of a lease than is in the log already.
    pub fn is_news(&self, node: &NodeId, ladder: &LadderReport) -> bool {
        let ladders = self.ladders.read();
        let known = ladders.get(node).into_iter().flatten().find(|(lease, _)| *lease == ladder.lease);
        known.is_none_or(|(_, steps)| *steps < ladder.steps.len())
    }

    /// Notes the steps that are in the log now, and forgets those that the node no longer tells.
    pub fn note_ladders(&self, node: &NodeId, logged: &[(LeaseId, Vec<LadderStep>)], report: &ReportBody) {
        if report.ladders.is_empty() && !self.ladders.read().contains_key(node) {
            return;
        }
        let mut ladders = self.ladders.write();
        let known = ladders.entry(node.clone()).or_default();
        known.retain(|(lease, _)| report.ladders.iter().any(|ladder| ladder.lease == *lease));
        for (lease, steps) in logged {
            known.retain(|(of, _)| *of != lease.0);
            known.push((lease.0, steps.len()));
        }
        if known.is_empty() {
            ladders.remove(node);
        }
    }

    /// A node asks to register: if that is granted, it was alive then.
    pub fn registering(&self, node: &NodeId, heard: Instant) {
        self.nodes.write().registering.insert(node.clone(), heard);
    }

    /// The registration was refused, and says nothing.
    pub fn not_registered(&self, node: &NodeId) {
        self.nodes.write().registering.remove(node);
    }

    /// Counts a registration as a sign of life.
    pub fn registered(&self, node: &NodeId, session: SessionId, at: Timestamp, heard: Instant) {
        let (readings, refused) = (FxHashMap::default(), BTreeSet::new());
        let latest = Latest { session, seq: 0, heard, at, readings, refused, work: Vec::new() };
        let mut nodes = self.nodes.write();
        nodes.registering.remove(node);
        nodes.latest.insert(node.clone(), latest);
    }

    /// When a node last reported to this daemon.
    pub fn reported_at(&self, node: &NodeId) -> Option<Timestamp> {
        self.nodes.read().latest.get(node).map(|latest| latest.at)
    }

    /// The newest reading of a chip.
    pub fn reading(&self, node: &NodeId, chip: &str) -> Option<ReadingView> {
        let nodes = self.nodes.read();
        let latest = nodes.latest.get(node)?;
        let values = latest.readings.get(chip)?.clone();
        Some(ReadingView { at: chiptide_api::time::to_utc(latest.at), values })
    }

    /// Declares those nodes silent that count as known but have not reported within `limit`. One that was declared silent
    /// stays so until `cluster`, the committed one, knows it again: a report that came in between might otherwise be
    /// acknowledged although the ledger counts its silence from before. To be called by one task only, which waits until
    /// what it declared is committed before it calls again.
    pub fn declare_silent(&self, cluster: &Cluster, limit: Duration, now: Instant) -> Vec<NodeId> {
        let mut nodes = self.nodes.write();
        let Nodes { latest, registering, declared_silent } = &mut *nodes;
        // Of those whose handler was given up, nobody else takes the entry away.
        registering.retain(|_, asked| now.duration_since(*asked) <= limit);
        let known = cluster.fleet.nodes.iter().filter(|node| node.unknown_since.is_none());
        let is_fresh = |last: &Latest| now.duration_since(last.heard) <= limit;
        let is_heard = |id: &NodeId| latest.get(id).is_some_and(is_fresh) || registering.contains_key(id);
        let (heard, silent): (Vec<_>, Vec<_>) = known.map(|node| &node.id).partition(|id| is_heard(id));
        for id in heard {
            declared_silent.remove(id);
        }
        declared_silent.extend(silent.iter().map(|id| (*id).clone()));
        silent.into_iter().cloned().collect()
    }
}

impl Said for Telemetry {
    fn of(&self, node: &NodeId, lease: LeaseId, rank: u32) -> Option<Told> {
        let nodes = self.nodes.read();
        let latest = nodes.latest.get(node)?;
        let said = latest.work.iter().find(|work| work.lease == lease.0 && work.rank == rank)?;
        let ago = i64::try_from(said.ended_ago.unwrap_or_default().0).unwrap_or(i64::MAX);
        Some(Told {
            run: said.run,
            work: said.work.clone(),
            ended_at: Timestamp(latest.at.0.saturating_sub(ago).max(0)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chiptide_model::{Event, NodeFacts};

    #[test]
    fn a_node_whose_registration_is_committed_but_not_noted_yet_is_not_silent() {
        let (node, session) = (NodeId::new("n1").expect("a name"), SessionId(Uuid::nil()));
        let registered = Event::NodeRegistered {
            node: node.clone(),
            session,
            boot_id: "b".into(),
            facts: NodeFacts {
                cpu_milli: 0,
                memory_mib: 0,
                rack: None,
                link_domain: None,
                agent_version: String::new(),
                driver_version: None,
                labels: Default::default(),
            },
            chips: Vec::new(),
        };
        let (telemetry, mut cluster) = (Telemetry::default(), Cluster::default());
        let (start, limit) = (Instant::now(), Duration::from_secs(10));
        telemetry.registering(&node, start);
        cluster.apply(Timestamp(1), &registered).expect("founded");
        assert!(telemetry.declare_silent(&cluster, limit, start + limit).is_empty());
        telemetry.registered(&node, session, Timestamp(1), start + limit);
        assert!(telemetry.declare_silent(&cluster, limit, start + limit * 2).is_empty());
        assert_eq!(telemetry.declare_silent(&cluster, limit, start + limit * 3).len(), 1);
        telemetry.registering(&node, start + limit * 3);
        telemetry.not_registered(&node);
        assert_eq!(telemetry.declare_silent(&cluster, limit, start + limit * 3), [node]);
    }
}
