//! Which reserved chips a job may use all the same, and who has to give way when it does.

use super::book::{holds, overlap};
use crate::cluster::Cluster;
use crate::draft::Draft;
use crate::fleet::{Chip, NodeIx, free_of};
use crate::place::{Scope, class_scopes, find_within};
use crate::queue::Shape;
use crate::room::Room;
use chiptide_model::{ChipId, Event, Hold, Holder, Job, JobId, LeaseId, NodeId, Placement, ReservationDrop, Timestamp};
use std::collections::BTreeSet;

/// The reservations a job may look into.
#[derive(Default)]
pub(super) struct Openings {
    /// Windows of the calendar that are open for its queue.
    pub windows: Vec<Holder>,
    /// Its own, and those that begin only after it must have ended.
    pub harmless: Vec<Holder>,
    /// Those of jobs that it precedes, by guarantee or priority: they have to give way.
    pub outranked: Vec<Holder>,
}

impl Openings {
    pub(super) fn of(cluster: &Cluster, job: &Job, shape: &Shape, now: Timestamp) -> Openings {
        let mut open = Openings::default();
        let gone_by = shape.stays_at_most.map(|span| now + span + cluster.policy.bounds.vacate);
        for (holder, reservation) in cluster.reservations() {
            let ends_before = gone_by.is_some_and(|gone| gone <= reservation.starts_at);
            match holder {
                Holder::Calendar(name) if reservation.open => {
                    let theirs = cluster.calendar(name).is_some_and(|entry| {
                        reservation.ends_at.is_none_or(|end| now < end)
                            && cluster.policy.is_within(&job.spec.queue, &entry.queue)
                    });
                    if theirs {
                        open.windows.push(holder.clone());
                    }
                }
                Holder::Job(owner) if *owner == job.id => open.harmless.push(holder.clone()),
                _ if ends_before => open.harmless.push(holder.clone()),
                Holder::Job(owner) if cluster.job(*owner).is_some_and(|owner| precedes(cluster, shape, owner, now)) => {
                    open.outranked.push(holder.clone());
                }
                _ => {}
            }
        }
        open
    }
}

/// Whether jobs of this shape go before a job whatever came first: by their queue's guarantee, or by priority.
pub(super) fn precedes(cluster: &Cluster, shape: &Shape, job: &Job, now: Timestamp) -> bool {
    let (ours, theirs) = (cluster.rank(shape, now), cluster.rank(&Shape::of(&job.spec), now));
    (ours.entitled, ours.priority) > (theirs.entitled, theirs.priority)
}

/// The fleet as it is, with the reservations opened that a job may take in the end: not those it would only pass
/// through, for what it gets has to be its own.
pub(crate) fn room_for<'a>(cluster: &'a Cluster, job: &Job, shape: &Shape, now: Timestamp) -> Room<'a> {
    let mut room = Room::of(cluster);
    if !cluster.reservations.by_holder.is_empty() {
        let open = Openings::of(cluster, job, &unbounded(shape.clone()), now);
        let own = open.harmless.into_iter().filter(|holder| *holder == Holder::Job(job.id));
        own.chain(open.windows).chain(open.outranked).for_each(|holder| room.open(&holder));
    }
    room
}

/// Room for a gang on the nodes that the calendar keeps for its queue now: they come before all others, which anyone
/// may use.
pub(crate) fn find_first(cluster: &Cluster, id: JobId, shape: &Shape, now: Timestamp) -> Option<Vec<Placement>> {
    if !cluster.reservations.by_holder.values().any(|reservation| reservation.open) {
        return None;
    }
    let windows = Openings::of(cluster, cluster.job(id)?, shape, now).windows;
    let nodes = Some(nodes_of(cluster, &windows)).filter(|nodes| !nodes.is_empty())?;
    let mut room = Room::of(cluster);
    windows.iter().for_each(|holder| room.open(holder));
    find_in(&room, shape, Some(&nodes))
}

/// Room for a gang now, reserved chips included that it may use: first those it harms nobody on, last those that others
/// have to give up.
pub(crate) fn find(cluster: &Cluster, id: JobId, shape: &Shape, now: Timestamp) -> Option<Vec<Placement>> {
    if cluster.reservations.by_holder.is_empty() {
        return None;
    }
    let open = Openings::of(cluster, cluster.job(id)?, shape, now);
    let mut room = Room::of(cluster);
    let mut find_with = |holders: &[Holder]| {
        holders.iter().for_each(|holder| room.open(holder));
        if holders.is_empty() { None } else { find_in(&room, shape, None) }
    };
    let helps = |holder: &Holder| !cluster.reservations.barren.contains(holder);
    let harmless: Vec<Holder> = open.windows.into_iter().chain(open.harmless).filter(helps).collect();
    let outranked: Vec<Holder> = open.outranked.into_iter().filter(helps).collect();
    find_with(&harmless).or_else(|| find_with(&outranked))
}

/// Notes whose reservations have nothing to give, so that not every job that is tried finds it out again.
pub(crate) fn note_barren(cluster: &mut Cluster) {
    let holders = cluster.reservations.by_holder.keys();
    let barren = holders.filter(|holder| !sets_idle(cluster, holder)).cloned().collect();
    cluster.reservations.barren = barren;
}

/// Whether anything that is reserved for a holder lies idle now; else there is nothing to be had from it.
fn sets_idle(cluster: &Cluster, holder: &Holder) -> bool {
    let placements = cluster.reservation(holder).map_or(&[][..], |reservation| &reservation.placements);
    let free = |chip: &Chip| {
        let held = chip.holds.iter().flat_map(|hold| hold.slots.iter().copied());
        free_of(held.chain(chip.claims.iter().flat_map(|(_, slots)| slots.iter().copied())))
    };
    let idle_chip = |hold: &Hold| cluster.chip(&hold.chip).is_some_and(|chip| chip.in_service() && free(chip) > 0);
    let aside = |placement: &Placement| {
        cluster.node(&placement.node).is_some_and(|node| node.cpu_reserved > 0 || node.memory_reserved > 0)
    };
    holds(placements).any(idle_chip) || placements.iter().any(aside)
}

fn nodes_of(cluster: &Cluster, holders: &[Holder]) -> BTreeSet<NodeIx> {
    let reservations = holders.iter().filter_map(|holder| cluster.reservation(holder));
    let placements = reservations.flat_map(|reservation| &reservation.placements);
    placements.filter_map(|placement| Some(cluster.node_at(&placement.node)?.0)).collect()
}

fn find_in(room: &Room<'_>, shape: &Shape, nodes: Option<&BTreeSet<NodeIx>>) -> Option<Vec<Placement>> {
    class_scopes(room.cluster, shape).into_iter().find_map(|scope| {
        let nodes = nodes.cloned().or(scope.nodes);
        find_within(room, shape, &Scope { classes: scope.classes, nodes })
    })
}

/// What a job may look into when it would evict for its room: whoever it evicts needs time to leave, so that it ends
/// before somebody's time cannot be promised.
pub(crate) fn open_for_eviction(cluster: &Cluster, id: JobId, shape: &Shape, now: Timestamp) -> Vec<Holder> {
    let Some(job) = cluster.job(id).filter(|_| !cluster.reservations.by_holder.is_empty()) else { return Vec::new() };
    let open = Openings::of(cluster, job, &unbounded(shape.clone()), now);
    [open.windows, open.harmless, open.outranked].concat()
}

fn unbounded(shape: Shape) -> Shape {
    Shape { stays_at_most: None, ..shape }
}

/// How a job is about to use its placements.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// It starts now.
    Now,
    /// It starts once others have left.
    Later,
}

/// Clears the way for placements a job is about to get: the reservations of jobs of lower priority that lie under them
/// are dropped, unless the job starts now and ends before they begin.
pub(crate) fn make_way(draft: &mut Draft<'_>, id: JobId, placements: &[Placement], when: Use) {
    let Some(job) = draft.cluster.job(id).filter(|_| !draft.cluster.reservations.by_holder.is_empty()) else { return };
    let shape = if when == Use::Now { Shape::of(&job.spec) } else { unbounded(Shape::of(&job.spec)) };
    let outranked = Openings::of(draft.cluster, job, &shape, draft.now()).outranked;
    let taken =
        |holder: &Holder| overlap(draft.cluster, placements, holder) || crowds(draft.cluster, placements, holder);
    let dropped: Vec<Holder> = outranked.into_iter().filter(taken).collect();
    for holder in dropped {
        draft.emit(Event::ReservationDropped { holder, why: ReservationDrop::Outranked { by: id } });
    }
}

/// A job that has got chips needs no reservation any more.
pub(crate) fn served(draft: &mut Draft<'_>, id: JobId, why: ReservationDrop) {
    let holder = Holder::Job(id);
    if draft.cluster.reservation(&holder).is_some() {
        draft.emit(Event::ReservationDropped { holder, why });
    }
}

/// Whether placements take CPU or memory that is set aside for a holder, once those who sit on their chips have left.
fn crowds(cluster: &Cluster, placements: &[Placement], holder: &Holder) -> bool {
    cluster.set_aside(holder).into_keys().any(|node| {
        let state = &cluster.fleet.nodes[node];
        let chips: BTreeSet<&ChipId> = here(placements, &state.id).flat_map(|p| &p.holds).map(|h| &h.chip).collect();
        let sits = |id: &&LeaseId| {
            let lease = cluster.leases.get(id).into_iter().flat_map(|lease| &lease.placements);
            lease.flat_map(|placement| &placement.holds).any(|hold| chips.contains(&hold.chip))
        };
        let leaving = state.leases.iter().filter(sits).filter_map(|id| cluster.leases.get(id));
        let given = leaving.map(|lease| total(&lease.placements, &state.id)).fold((0, 0), add);
        let (cpu, memory) = total(placements, &state.id);
        cpu > 0 && cpu + state.cpu_claimed + state.cpu_reserved > state.cpu_free + given.0
            || memory > 0 && memory + state.memory_claimed + state.memory_reserved > state.memory_free + given.1
    })
}

fn here<'a>(placements: &'a [Placement], node: &'a NodeId) -> impl Iterator<Item = &'a Placement> {
    placements.iter().filter(move |placement| placement.node == *node)
}

fn total(placements: &[Placement], node: &NodeId) -> (u64, u64) {
    here(placements, node).map(|placement| (placement.cpu_milli, placement.memory_mib)).fold((0, 0), add)
}

fn add((cpu, memory): (u64, u64), (more_cpu, more_memory): (u64, u64)) -> (u64, u64) {
    (cpu + more_cpu, memory + more_memory)
}
