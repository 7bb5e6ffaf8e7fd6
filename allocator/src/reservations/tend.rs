//! What becomes of reservations when their chips or the clock change.

use super::book::holds;
use super::calendar::choose;
use super::serve::ready;
use crate::cluster::Cluster;
use crate::draft::Draft;
use chiptide_model::{CalendarReservation, Event, Hold, Holder, JobId, Placement, Policy, ReservationDrop};

/// Does what the calendar is due for, and gives up what has lost a chip or is overrun.
pub(crate) fn tend(draft: &mut Draft<'_>) {
    for entry in draft.cluster.policy.calendar.clone() {
        keep_calendar(draft, &entry);
    }
    while let Some(holder) = draft.cluster.reservations.to_check.pop_first() {
        let Some(reservation) = draft.cluster.reservation(&holder) else { continue };
        if reservation.placements.iter().all(|placement| is_sound(draft.cluster, placement)) {
            continue;
        }
        match &holder {
            Holder::Job(_) => draft.emit(Event::ReservationDropped { holder, why: ReservationDrop::ChipLost }),
            Holder::Calendar(name) => {
                if let Some(entry) = draft.cluster.calendar(name).cloned() {
                    fill_up(draft, &entry, true);
                }
            }
        }
    }
    for job in overdue(draft) {
        if ready(draft.cluster, job).is_none() {
            draft.emit(Event::ReservationDropped { holder: Holder::Job(job), why: ReservationDrop::Overrun });
        }
    }
    fill_short(draft);
}

/// A job that could have started and did not, for whatever reason, does not block its chips for ever.
pub(crate) fn close_overdue(draft: &mut Draft<'_>) {
    for job in overdue(draft) {
        draft.emit(Event::ReservationDropped { holder: Holder::Job(job), why: ReservationDrop::Overrun });
    }
}

fn overdue(draft: &Draft<'_>) -> Vec<JobId> {
    let due = draft.cluster.reservations.jobs().filter(|(_, reservation)| reservation.starts_at <= draft.now());
    due.map(|(job, _)| job).collect()
}

/// Whether every chip of a placement can still be granted. A node that does not report may yet come back in time.
fn is_sound(cluster: &Cluster, placement: &Placement) -> bool {
    placement.holds.iter().all(|hold| cluster.chip(&hold.chip).is_some_and(|chip| chip.in_service()))
}

/// Chooses the chips of a calendar entry, opens its window, and closes it, as each is due.
fn keep_calendar(draft: &mut Draft<'_>, entry: &CalendarReservation) {
    let holder = || Holder::Calendar(entry.name.clone());
    while draft.cluster.calendar_due(entry).is_some_and(|due| due <= draft.now()) {
        let made = draft.cluster.reservation(&holder()).is_some();
        if entry.to <= draft.now() {
            draft.emit(Event::ReservationDropped { holder: holder(), why: ReservationDrop::Over });
        } else if made {
            draft.emit(Event::ReservationOpened { holder: holder() });
        } else {
            make(draft, entry, choose(draft.cluster, entry, Vec::new()));
        }
    }
}

fn make(draft: &mut Draft<'_>, entry: &CalendarReservation, placements: Vec<Placement>) {
    let holder = Holder::Calendar(entry.name.clone());
    draft.emit(Event::ReservationMade { holder, starts_at: entry.from, ends_at: Some(entry.to), placements });
}

/// Fills up what is short, when something has come free since it was last tried.
fn fill_short(draft: &mut Draft<'_>) {
    let supply = draft.cluster.queue.supply();
    if draft.cluster.reservations.filled_at == Some(supply) {
        return;
    }
    for entry in draft.cluster.policy.calendar.clone() {
        fill_up(draft, &entry, false);
    }
    draft.cluster.reservations.filled_at = Some(draft.cluster.queue.supply());
}

/// Keeps the chips a calendar reservation has, less those lost, and adds what can be had.
fn fill_up(draft: &mut Draft<'_>, entry: &CalendarReservation, lost: bool) {
    let holder = Holder::Calendar(entry.name.clone());
    let Some(reservation) = draft.cluster.reservation(&holder) else { return };
    let had = holds(&reservation.placements).count();
    if !lost && had as u64 >= u64::from(entry.chips) {
        return;
    }
    let sound = reservation.placements.iter().filter_map(|placement| sound_part(draft.cluster, placement)).collect();
    let placements = choose(draft.cluster, entry, sound);
    if lost || holds(&placements).count() > had {
        make(draft, entry, placements);
    }
}

/// A placement without the chips that are out of service, and without their part of CPU and memory.
fn sound_part(cluster: &Cluster, placement: &Placement) -> Option<Placement> {
    let in_service = |hold: &&Hold| cluster.chip(&hold.chip).is_some_and(|chip| chip.in_service());
    let left: Vec<Hold> = placement.holds.iter().filter(in_service).cloned().collect();
    let part = |total: u64| total * left.len() as u64 / placement.holds.len().max(1) as u64;
    let (cpu_milli, memory_mib) = (part(placement.cpu_milli), part(placement.memory_mib));
    (!left.is_empty()).then(|| Placement { holds: left, cpu_milli, memory_mib, ..placement.clone() })
}

/// A policy came into force: what it no longer asks for, or asks for differently, is dropped.
pub(crate) fn policy_changed(draft: &mut Draft<'_>, before: &Policy) {
    let policy = draft.cluster.policy.clone();
    let holders: Vec<Holder> = draft.cluster.reservations.by_holder.keys().cloned().collect();
    for holder in holders {
        let withdrawn = match &holder {
            Holder::Job(job) => policy.backfill.reservations_max == 0 && draft.cluster.waits(*job),
            Holder::Calendar(name) => {
                let named = |policy: &Policy| policy.calendar.iter().find(|entry| entry.name == *name).cloned();
                named(&policy) != named(before)
            }
        };
        if withdrawn {
            draft.emit(Event::ReservationDropped { holder, why: ReservationDrop::Withdrawn });
        }
    }
}
