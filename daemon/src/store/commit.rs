//! The transaction of a round: the log and the current state it folds to, all or nothing.

use super::holds::HoldWrite;
use super::idempotency_keys::Recorded;
use super::leader::{Leadership, guard};
use super::leases::LeaseWrite;
use super::nodes::ChipWrite;
use super::{Result, Store, claims, events, holds, idempotency_keys, jobs, leases, nodes, policies};
use chiptide_allocator::fleet::Node;
use chiptide_allocator::{Cluster, Touched};
use chiptide_model::{ChipId, Event, Job, JobId, Lease, LeaseId, LeaseState, Timestamp};
use std::collections::BTreeSet;

/// Everything a round writes.
#[derive(Debug)]
pub struct Commit<'a> {
    leadership: Leadership,
    at: Timestamp,
    after: &'a Cluster,
    touched: &'a Touched,
    events: &'a [Event],
    answers: &'a [Recorded],
    fleet: FleetChanges<'a>,
}

#[derive(Debug, Default)]
struct FleetChanges<'a> {
    nodes: Vec<(usize, &'a Node)>,
    added: Vec<ChipWrite<'a>>,
    changed: Vec<ChipWrite<'a>>,
    raised: Vec<(&'a ChipId, u64, u64)>,
}

impl<'a> Commit<'a> {
    /// Gathers what a round writes: `before` is the cluster as committed, `after` what the round makes of it.
    pub fn of(
        leadership: Leadership,
        at: Timestamp,
        (before, after): (&Cluster, &'a Cluster),
        touched: &'a Touched,
        events: &'a [Event],
        answers: &'a [Recorded],
    ) -> Commit<'a> {
        Commit { leadership, at, after, touched, events, answers, fleet: fleet_changes(before, after, touched) }
    }
}

fn fleet_changes<'a>(before: &Cluster, after: &'a Cluster, touched: &'a Touched) -> FleetChanges<'a> {
    let mut changes = FleetChanges::default();
    for (ix, now) in touched.nodes.iter().filter_map(|id| after.node_at(id)) {
        let changed = before.node(&now.id).is_none_or(|was| {
            was.session != now.session || was.unknown_since != now.unknown_since || was.facts != now.facts
        });
        if changed {
            changes.nodes.push((ix, now));
        }
    }
    for (id, (ix, now)) in touched.chips.iter().filter_map(|id| Some((id, after.chip_at(id)?))) {
        let write = (ix, &after.fleet.nodes[now.node].id, now);
        let Some(was) = before.chip(id) else {
            changes.added.push(write);
            continue;
        };
        if was.epoch != now.epoch {
            changes.raised.push((id, was.epoch, now.epoch));
        }
        if was.health != now.health || was.quarantine != now.quarantine || was.facts != now.facts {
            changes.changed.push(write);
        }
    }
    changes
}

/// Writes a round in one transaction. On an error nothing is known to be written (a lost connection may have committed):
/// the caller reloads.
pub async fn commit(store: &Store, round: &Commit<'_>) -> Result<()> {
    let mut tx = store.writer.begin().await?;
    guard(&mut tx, round.leadership).await?;
    if !round.events.is_empty() {
        let first = round.after.seq + 1 - round.events.len() as u64;
        events::append(&mut tx, first, round.at, round.leadership.epoch, round.events).await?;
    }
    if round.touched.policy {
        policies::insert(&mut tx, round.at, &round.after.policy).await?;
    }
    write_fleet(&mut tx, &round.fleet).await?;
    write_holds_and_leases(&mut tx, round).await?;
    if !round.answers.is_empty() {
        idempotency_keys::insert(&mut tx, round.at, round.answers).await?;
    }
    tx.commit().await?;
    Ok(())
}

async fn write_fleet(tx: &mut sqlx::PgConnection, fleet: &FleetChanges<'_>) -> Result<()> {
    if !fleet.nodes.is_empty() {
        nodes::upsert(tx, &fleet.nodes).await?;
    }
    if !fleet.added.is_empty() {
        nodes::insert_chips(tx, &fleet.added).await?;
    }
    if !fleet.raised.is_empty() {
        nodes::raise_epochs(tx, &fleet.raised).await?;
    }
    if !fleet.changed.is_empty() {
        nodes::update_chips(tx, &fleet.changed).await?;
    }
    Ok(())
}

/// Leases, jobs, holds and claims, in the order that the constraints between them need: what ends goes first, then
/// jobs, then what is new.
async fn write_holds_and_leases(tx: &mut sqlx::PgConnection, round: &Commit<'_>) -> Result<()> {
    let changes = Changes::of(round);
    if !changes.old_leases.is_empty() {
        leases::update(tx, &changes.old_leases).await?;
    }
    if !changes.new_jobs.is_empty() {
        jobs::insert(tx, &changes.new_jobs).await?;
    }
    if !changes.old_jobs.is_empty() {
        jobs::update(tx, &changes.old_jobs).await?;
    }
    if !changes.new_leases.is_empty() {
        leases::insert(tx, &changes.new_leases).await?;
    }
    if !changes.proven.is_empty() {
        holds::delete(tx, &changes.proven).await?;
    }
    if !changes.new_holds.is_empty() {
        holds::insert(tx, &changes.new_holds).await?;
    }
    let claims: Vec<_> = round.touched.claims.iter().map(|job| (*job, round.after.claim(*job))).collect();
    if !claims.is_empty() {
        claims::replace(tx, round.after, &claims).await?;
    }
    Ok(())
}

/// The rows a round touches, sorted by what has to be done with them.
struct Changes<'a> {
    new_jobs: Vec<&'a Job>,
    old_jobs: Vec<&'a Job>,
    new_leases: Vec<LeaseWrite<'a>>,
    old_leases: Vec<LeaseWrite<'a>>,
    new_holds: Vec<HoldWrite<'a>>,
    proven: Vec<(usize, LeaseId)>,
}

impl<'a> Changes<'a> {
    fn of(round: &'a Commit<'a>) -> Changes<'a> {
        let mut submitted: BTreeSet<JobId> = BTreeSet::new();
        let mut granted: BTreeSet<LeaseId> = BTreeSet::new();
        let mut ended: BTreeSet<LeaseId> = BTreeSet::new();
        let mut vacated: BTreeSet<(&ChipId, LeaseId)> = BTreeSet::new();
        for event in round.events {
            match event {
                Event::JobSubmitted { job, .. } => drop(submitted.insert(*job)),
                Event::LeaseGranted { lease, .. } => drop(granted.insert(*lease)),
                Event::ChipVacated { chip, lease, .. } => drop(vacated.insert((chip, *lease))),
                Event::LeaseEnded { lease, .. } => drop(ended.insert(*lease)),
                _ => {}
            }
        }
        let (after, touched) = (round.after, round.touched);
        let live = touched.jobs.iter().filter_map(|id| after.job(*id));
        let jobs = live.chain(touched.ended_jobs.values());
        let (new_jobs, old_jobs) = jobs.partition(|job| submitted.contains(&job.id));
        // A lease that ended in an earlier round has its last row; that its chips are vacant is told by its holds.
        let changed = |lease: &&Lease| granted.contains(&lease.id) || lease.is_live() || ended.contains(&lease.id);
        let leases = touched.leases.iter().filter_map(|id| after.lease(*id)).chain(touched.vacated_leases.values());
        let write = |lease: &'a Lease| LeaseWrite { lease, vacate_by: vacate_by(after, lease) };
        let leases = leases.filter(changed).map(write);
        let (new_leases, old_leases): (Vec<_>, Vec<_>) = leases.partition(|write| granted.contains(&write.lease.id));
        let number = |chip: &ChipId| after.chip_at(chip).map(|(ix, _)| ix);
        let holds = new_leases.iter().flat_map(|write| {
            let holds = write.lease.placements.iter().flat_map(|placement| &placement.holds);
            holds.map(|hold| (write.lease.id, hold))
        });
        let still_there = holds.filter(|(lease, hold)| !vacated.contains(&(&hold.chip, *lease)));
        let proven = vacated.iter().filter(|(_, lease)| !granted.contains(lease));
        Changes {
            new_holds: still_there.filter_map(|(lease, hold)| Some((lease, number(&hold.chip)?, hold))).collect(),
            proven: proven.filter_map(|(chip, lease)| Some((number(chip)?, *lease))).collect(),
            new_jobs,
            old_jobs,
            new_leases,
            old_leases,
        }
    }
}

/// By when the chips of an ended lease must be proven vacant.
fn vacate_by(cluster: &Cluster, lease: &Lease) -> Option<Timestamp> {
    match &lease.state {
        LeaseState::Ended { at, .. } => Some(*at + cluster.policy.bounds.vacate),
        _ => None,
    }
}
