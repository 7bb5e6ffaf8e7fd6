//! What reservations have to do with a job's waiting.

use super::book::holds;
use super::calendar::calendar_shortfall;
use super::openings::Openings;
use crate::cluster::Cluster;
use crate::explain::{Reason, Shortage};
use crate::fleet::free_of;
use crate::queue::Shape;
use chiptide_model::{Holder, Job, SLOTS_PER_CHIP};

/// When it starts at the latest, if that is known; what is kept from it for others; and where the calendar could not
/// keep what it should have.
pub(crate) fn reasons(cluster: &Cluster, job: &Job) -> Vec<Reason> {
    let own = cluster.reservation(&Holder::Job(job.id));
    let mut reasons: Vec<Reason> = own.map(|own| Reason::Reserved { starts_at: own.starts_at }).into_iter().collect();
    let chips = kept_for_others(cluster, job);
    reasons.extend((chips > 0).then_some(Reason::KeptForOthers { chips }));
    for entry in cluster.policy.calendar.iter().filter(|entry| cluster.policy.is_within(&job.spec.queue, &entry.queue))
    {
        let short = calendar_shortfall(cluster, entry);
        let requested = u64::from(entry.chips);
        let shortage = Shortage { requested, available: requested.saturating_sub(short) };
        reasons.extend((short > 0).then(|| Reason::ReservationShort { name: entry.name.clone(), shortage }));
    }
    reasons
}

/// Chips that nobody holds, of a class the job accepts, and that it may not start on all the same.
fn kept_for_others(cluster: &Cluster, job: &Job) -> u64 {
    if cluster.reservations.by_holder.is_empty() {
        return 0;
    }
    let open = Openings::of(cluster, job, &Shape::of(&job.spec), cluster.at);
    let others = cluster.reservations().filter(|(holder, _)| {
        !open.windows.contains(holder) && !open.harmless.contains(holder) && !open.outranked.contains(holder)
    });
    let accepted = |chip: &&crate::fleet::Chip| {
        job.spec.device_classes.is_empty()
            || job.spec.device_classes.iter().any(|choice| choice.class == chip.facts.class)
    };
    let chips = others.flat_map(|(_, known)| holds(&known.placements)).filter_map(|hold| cluster.chip(&hold.chip));
    let idle = |chip: &crate::fleet::Chip| {
        let held = chip.holds.iter().flat_map(|hold| hold.slots.iter().copied());
        let promised = chip.claims.iter().flat_map(|(_, slots)| slots.iter().copied());
        u64::from(free_of(held.chain(promised)) == SLOTS_PER_CHIP)
    };
    chips.filter(accepted).filter(|chip| chip.in_service()).map(idle).sum()
}
