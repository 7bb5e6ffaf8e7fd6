//! The transaction of a round: the log and the current state it folds to, all or nothing.

use super::idempotency_keys::Recorded;
use super::leader::{Leadership, guard};
use super::nodes::ChipWrite;
use super::{Result, Store, claims, events, holds, idempotency_keys, jobs, leases, nodes, policies};
use chiptide_allocator::fleet::Node;
use chiptide_allocator::{Cluster, Touched};
use chiptide_model::{ChipId, Event, Hold, JobId, LeaseId, LeaseState, Timestamp};
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
    if !changes.ended.is_empty() {
        holds::set_vacating(tx, &changes.ended).await?;
    }
    if !changes.new_holds.is_empty() {
        holds::insert(tx, &changes.new_holds).await?;
    }
    let claims: Vec<_> = round.touched.claims.iter().map(|job| (*job, round.after.claim(*job))).collect();
    if !claims.is_empty() {
        claims::replace(tx, &claims).await?;
    }
    Ok(())
}

/// The rows a round touches, sorted by what has to be done with them.
struct Changes<'a> {
    new_jobs: Vec<&'a chiptide_model::Job>,
    old_jobs: Vec<&'a chiptide_model::Job>,
    new_leases: Vec<leases::LeaseWrite<'a>>,
    old_leases: Vec<leases::LeaseWrite<'a>>,
    new_holds: Vec<holds::HoldWrite<'a>>,
    proven: Vec<(&'a ChipId, LeaseId)>,
    ended: Vec<(LeaseId, Timestamp)>,
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
        let touched = round.touched;
        let live = touched.jobs.iter().filter_map(|id| round.after.job(*id));
        let (new_jobs, old_jobs) = live.chain(touched.ended_jobs.values()).partition(|job| submitted.contains(&job.id));
        let kept = touched.leases.iter().filter_map(|id| round.after.lease(*id)).map(|lease| (lease, false));
        let gone = touched.vacated_leases.values().map(|lease| (lease, true));
        let (new_leases, old_leases): (Vec<_>, Vec<_>) =
            kept.chain(gone).partition(|(lease, _)| granted.contains(&lease.id));
        let by = |lease: &chiptide_model::Lease| match &lease.state {
            LeaseState::Ended { at, .. } => Some(*at + round.after.policy.bounds.vacate),
            _ => None,
        };
        let still_there = |lease: LeaseId, hold: &&Hold| !vacated.contains(&(&hold.chip, lease));
        let holds_of = |lease: &'a chiptide_model::Lease| {
            let holds = lease.placements.iter().flat_map(|placement| &placement.holds);
            holds.filter(move |hold| still_there(lease.id, hold)).map(move |hold| (lease.id, hold, by(lease)))
        };
        Changes {
            new_holds: new_leases.iter().flat_map(|(lease, _)| holds_of(lease)).collect(),
            proven: vacated.iter().filter(|(_, lease)| !granted.contains(lease)).copied().collect(),
            ended: old_leases
                .iter()
                .filter(|(lease, _)| ended.contains(&lease.id))
                .filter_map(|(lease, _)| Some((lease.id, by(lease)?)))
                .collect(),
            new_jobs,
            old_jobs,
            new_leases,
            old_leases,
        }
    }
}
