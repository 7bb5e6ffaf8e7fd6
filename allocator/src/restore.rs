//! Memory from rows: the cluster as the current-state tables have it, equal to the fold of the log behind them.

use crate::cluster::{Claim, Cluster, Timer};
use crate::demand::Demand;
use crate::fleet::{ChipHold, Node};
use crate::quota::PastUse;
use crate::reservations::Reservation;
use chiptide_model::{
    ChipFacts, ChipId, Cordon, Faults, Health, Holder, Job, JobId, JobState, Lease, LeaseId, NodeFacts, NodeId, Policy,
    Quarantine, SessionId, Timestamp,
};
use std::collections::BTreeSet;

/// A node as stored.
#[derive(Clone, PartialEq, Debug)]
pub struct NodeRow {
    /// Its name.
    pub id: NodeId,
    /// What it is.
    pub facts: NodeFacts,
    /// The agent's session.
    pub session: SessionId,
    /// Its boot.
    pub boot_id: String,
    /// Since when it is unknown.
    pub unknown_since: Option<Timestamp>,
    /// Why nothing more is granted on it.
    pub cordon: Option<Cordon>,
    /// Its chips, in the order of registration.
    pub chips: Vec<ChipRow>,
}

/// A chip as stored.
#[derive(Clone, PartialEq, Debug)]
pub struct ChipRow {
    /// What it is.
    pub facts: ChipFacts,
    /// Its epoch.
    pub epoch: u64,
    /// Its health.
    pub health: Health,
    /// Why it is out of service.
    pub quarantine: Option<Quarantine>,
    /// Its faults, open and past.
    pub faults: Faults,
}

/// Everything the current-state tables hold of the live cluster.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Snapshot {
    /// The policy in force.
    pub policy: Policy,
    /// The leader's epoch.
    pub leader_epoch: u64,
    /// Number of the last event.
    pub seq: u64,
    /// Place of the last job accepted.
    pub last_place: u64,
    /// What jobs ask for, as placement has learned it.
    pub demand: Demand,
    /// Nodes, in the order of their first registration.
    pub nodes: Vec<NodeRow>,
    /// Live jobs.
    pub jobs: Vec<Job>,
    /// Leases that are live or not yet wholly vacated.
    pub leases: Vec<Lease>,
    /// Which chips of ended leases are still to be proven vacant, and by when.
    pub vacating: Vec<(ChipId, LeaseId, Timestamp)>,
    /// Promises.
    pub claims: Vec<(JobId, Claim)>,
    /// What the queues used of late.
    pub past_use: Vec<PastUse>,
    /// When jobs of each queue (and of those below it) were preempted within a day, oldest first.
    pub preempted: Vec<(String, Vec<Timestamp>)>,
    /// When the last event happened.
    pub at: Timestamp,
    /// When a daemon last took the lead.
    pub took_over_at: Option<Timestamp>,
    /// Chips set aside.
    pub reservations: Vec<(Holder, Reservation)>,
    /// Jobs moved for each live gang.
    pub moved: Vec<(JobId, BTreeSet<JobId>)>,
    /// When jobs were last moved.
    pub moved_at: Option<Timestamp>,
}

impl Snapshot {
    /// What the tables would hold of this cluster; [`Snapshot::restore`] is its inverse.
    pub fn of(cluster: &Cluster) -> Snapshot {
        let chip_row = |chip: &crate::fleet::Chip| ChipRow {
            facts: chip.facts.clone(),
            epoch: chip.epoch,
            health: chip.health.clone(),
            quarantine: chip.quarantine.clone(),
            faults: chip.faults.clone(),
        };
        let node_row = |node: &Node| NodeRow {
            id: node.id.clone(),
            facts: node.facts.clone(),
            session: node.session,
            boot_id: node.boot_id.clone(),
            unknown_since: node.unknown_since,
            cordon: node.cordon.clone(),
            chips: node.chips.iter().map(|&ix| chip_row(&cluster.fleet.chips[ix])).collect(),
        };
        let vacating: BTreeSet<(ChipId, LeaseId, Timestamp)> = cluster
            .fleet
            .chips
            .iter()
            .flat_map(|chip| chip.holds.iter().map(|hold| (chip.facts.id.clone(), hold)))
            .filter_map(|(chip, hold)| Some((chip, hold.lease, hold.vacate_by?)))
            .collect();
        Snapshot {
            policy: cluster.policy.clone(),
            leader_epoch: cluster.leader_epoch,
            seq: cluster.seq,
            last_place: cluster.last_place,
            demand: cluster.demand.clone(),
            nodes: cluster.fleet.nodes.iter().map(node_row).collect(),
            jobs: cluster.jobs.values().cloned().collect(),
            leases: cluster.leases.values().cloned().collect(),
            vacating: vacating.into_iter().collect(),
            claims: cluster.claims.iter().map(|(job, claim)| (*job, claim.clone())).collect(),
            past_use: cluster.ledger.past(&cluster.fleet.classes),
            preempted: cluster.ledger.preempted(),
            at: cluster.at,
            took_over_at: cluster.took_over_at,
            reservations: cluster.reservations().map(|(holder, known)| (holder.clone(), known.clone())).collect(),
            moved: cluster.consolidations.moved.iter().map(|(gang, moved)| (*gang, moved.clone())).collect(),
            moved_at: cluster.consolidations.last,
        }
    }

    /// Builds the cluster. An error names the row that does not fit the others.
    pub fn restore(self) -> Result<Cluster, String> {
        let mut cluster = Cluster {
            policy: self.policy,
            leader_epoch: self.leader_epoch,
            seq: self.seq,
            last_place: self.last_place,
            at: self.at,
            looked_at: self.at,
            took_over_at: self.took_over_at,
            demand: self.demand,
            ..Cluster::default()
        };
        cluster.fleet.learn(&cluster.demand.known);
        cluster.fleet.obey(&cluster.policy);
        self.nodes.into_iter().for_each(|row| add_node(&mut cluster, row));
        for mut job in self.jobs {
            *cluster.priorities.entry(job.spec.priority).or_default() += 1;
            // The leases say which of them are extra.
            job.extras.clear();
            cluster.jobs.insert(job.id, job);
        }
        let still_held: BTreeSet<(ChipId, LeaseId)> =
            self.vacating.iter().map(|(chip, lease, _)| (chip.clone(), *lease)).collect();
        for lease in self.leases {
            add_lease(&mut cluster, lease, &still_held)?;
        }
        for (chip, lease, by) in self.vacating {
            set_vacating(&mut cluster, &chip, lease, by)?;
        }
        for (job, claim) in self.claims {
            cluster.timers.insert((claim.deadline, Timer::Claim(job)));
            cluster.set_claimed(job, &claim.placements, true)?;
            cluster.claims.insert(job, claim);
            cluster.claims_to_check.insert(job);
        }
        for job in cluster.jobs.values().filter(|job| job.state == JobState::Pending) {
            if !cluster.claims.contains_key(&job.id) {
                cluster.queue.insert(&job.spec, job.place, job.id);
            }
        }
        cluster.note_all_leaving();
        (cluster.consolidations.moved, cluster.consolidations.last) = (self.moved.into_iter().collect(), self.moved_at);
        for node in 0..cluster.fleet.nodes.len() {
            cluster.fleet.append_pools(node);
        }
        cluster.restore_ledger(self.past_use, self.preempted);
        for (holder, reservation) in self.reservations {
            cluster.set_reserved(&holder, &reservation, true)?;
            cluster.reservations.to_check.insert(holder);
        }
        cluster.recount_stakes();
        let elastic: Vec<JobId> = cluster.jobs.values().filter(|job| job.spec.is_elastic()).map(|job| job.id).collect();
        elastic.into_iter().for_each(|job| cluster.resize(job));
        Ok(cluster)
    }
}

/// No event changes the orders of one node more often.
const ORDERS_PER_EVENT: u64 = 16;

fn add_node(cluster: &mut Cluster, row: NodeRow) {
    // A leader that reads its cluster anew keeps its epoch, so its count must not begin again: an agent would take other
    // orders for those it has. No event changes a node's orders so often.
    let orders_revision = cluster.seq.saturating_mul(ORDERS_PER_EVENT);
    let ix = cluster.fleet.nodes.len();
    cluster.nodes_by_id.insert(row.id.clone(), ix);
    cluster.fleet.nodes.push(Node {
        id: row.id,
        cpu_free: row.facts.cpu_milli,
        memory_free: row.facts.memory_mib,
        facts: row.facts,
        session: row.session,
        boot_id: row.boot_id,
        unknown_since: row.unknown_since,
        cordon: row.cordon,
        chips: Vec::new(),
        cpu_claimed: 0,
        memory_claimed: 0,
        cpu_reserved: 0,
        memory_reserved: 0,
        leases: BTreeSet::new(),
        orders_revision,
    });
    for chip in row.chips {
        let at = cluster.add_chip(ix, &chip.facts, &chip.health);
        let added = &mut cluster.fleet.chips[at];
        (added.epoch, added.quarantine, added.faults) = (chip.epoch, chip.quarantine, chip.faults);
    }
}

/// Puts a lease back on the chips it still holds: all of them while it is live, those not yet vacated once it has ended.
fn add_lease(cluster: &mut Cluster, lease: Lease, still_held: &BTreeSet<(ChipId, LeaseId)>) -> Result<(), String> {
    let live = lease.is_live();
    for placement in &lease.placements {
        let node = *cluster.nodes_by_id.get(&placement.node).ok_or_else(|| format!("no node {}", placement.node))?;
        let mut held = live && placement.holds.is_empty();
        for hold in &placement.holds {
            if !live && !still_held.contains(&(hold.chip.clone(), lease.id)) {
                continue;
            }
            held = true;
            let chip = cluster.chip_ix(&hold.chip)?;
            cluster.fleet.chips[chip].holds.push(ChipHold {
                lease: lease.id,
                job: lease.job,
                slots: hold.slots.clone(),
                epoch: hold.epoch,
                vacate_by: None,
            });
        }
        if held {
            cluster.fleet.nodes[node].leases.insert(lease.id);
        }
    }
    for node in cluster.nodes_of(&lease) {
        let state = &mut cluster.fleet.nodes[node];
        if state.leases.contains(&lease.id) {
            for placement in lease.placements.iter().filter(|placement| placement.node == state.id) {
                state.cpu_free = state.cpu_free.saturating_sub(placement.cpu_milli);
                state.memory_free = state.memory_free.saturating_sub(placement.memory_mib);
            }
        }
    }
    cluster.timers.extend(cluster.dues(&lease).into_iter().flatten());
    if lease.extra
        && live
        && let Some(job) = cluster.jobs.get_mut(&lease.job)
    {
        job.extras.insert(lease.id);
    }
    cluster.leases.insert(lease.id, lease);
    Ok(())
}

fn set_vacating(cluster: &mut Cluster, chip: &ChipId, lease: LeaseId, by: Timestamp) -> Result<(), String> {
    let ix = cluster.chip_ix(chip)?;
    let state = &mut cluster.fleet.chips[ix];
    for hold in state.holds.iter_mut().filter(|hold| hold.lease == lease) {
        hold.vacate_by = Some(by);
        cluster.vacating += 1;
    }
    let due = cluster.proofs_due(ix);
    cluster.move_timers(Vec::new(), due);
    Ok(())
}
