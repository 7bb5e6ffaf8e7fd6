//! Whether a grant has the shape its job asked for.

use super::chips::Chips;
use super::findings::{Findings, Rule};
use chiptide_model::{ChipDemand, JobId, JobSpec, Kind, Placement, SLOTS_PER_CHIP, SameLevel};
use std::collections::BTreeSet;

/// Which of a job's replicas a lease holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Replicas {
    /// Those that start together.
    Gang,
    /// One more, of an elastic job.
    Extra,
}

/// Every replica once, each with the chips it asked for, of a class it accepts, as near to each other as it must be.
pub(super) fn check(
    job: JobId,
    spec: &JobSpec,
    granted: Replicas,
    placements: &[Placement],
    chips: &Chips,
    findings: &mut Findings,
) {
    let replicas: BTreeSet<u32> = placements.iter().map(|placement| placement.replica).collect();
    let whole = match granted {
        Replicas::Gang => placements.len() == spec.gang() as usize && replicas.iter().copied().eq(0..spec.gang()),
        Replicas::Extra => {
            placements.len() == 1 && replicas.iter().all(|replica| (spec.gang()..spec.replicas).contains(replica))
        }
    };
    if !whole {
        let detail = format!("job {job} asked for {} replicas and got {}", spec.gang(), placements.len());
        findings.add(Rule::GangIncomplete, detail);
    }
    for placement in placements {
        if !has_its_chips(spec, placement, chips) {
            let detail = format!("replica {} of job {job} did not get what it asked for", placement.replica);
            findings.add(Rule::GangIncomplete, detail);
        }
    }
    check_classes(job, spec, placements, chips, findings);
    check_nearness(job, spec, placements, chips, findings);
}

fn has_its_chips(spec: &JobSpec, placement: &Placement, chips: &Chips) -> bool {
    let distinct: BTreeSet<_> = placement.holds.iter().map(|hold| &hold.chip).collect();
    let as_many = usize::from(spec.demand.chips());
    let each_enough = placement.holds.iter().all(|hold| {
        let slots: u32 = hold.slots.iter().map(|slots| u32::from(slots.count())).sum();
        let wanted = match spec.demand {
            ChipDemand::Chips(_) => Some(SLOTS_PER_CHIP),
            share => chips.facts(&hold.chip).and_then(|(_, memory_mib)| share.slots_of(memory_mib)),
        };
        wanted.is_some_and(|wanted| u32::from(wanted) == slots)
    });
    let cpu_enough = placement.cpu_milli >= spec.cpu_milli && placement.memory_mib >= spec.memory_mib;
    placement.holds.len() == as_many && distinct.len() == as_many && each_enough && cpu_enough
}

fn check_classes(job: JobId, spec: &JobSpec, placements: &[Placement], chips: &Chips, findings: &mut Findings) {
    let holds = placements.iter().flat_map(|placement| &placement.holds);
    let classes: BTreeSet<_> = holds.filter_map(|hold| chips.facts(&hold.chip)).map(|(class, _)| class).collect();
    if let Some(class) = classes.iter().find(|class| !accepts(spec, class)) {
        findings.add(Rule::WrongChip, format!("job {job} does not accept {class}"));
    }
    if spec.kind == Kind::Training && classes.len() > 1 {
        findings.add(Rule::WrongChip, format!("the gang of training job {job} mixes {} classes", classes.len()));
    }
}

fn accepts(spec: &JobSpec, class: &chiptide_model::DeviceClass) -> bool {
    spec.device_classes.is_empty() || spec.device_classes.iter().any(|choice| choice.class == *class)
}

fn check_nearness(job: JobId, spec: &JobSpec, placements: &[Placement], chips: &Chips, findings: &mut Findings) {
    let Some(same) = spec.same.filter(|same| same.required) else { return };
    let nodes: BTreeSet<_> = placements.iter().map(|placement| &placement.node).collect();
    let places = match same.level {
        SameLevel::Node => nodes.len(),
        SameLevel::Link => nodes.iter().map(|node| chips.link_domain(node)).collect::<BTreeSet<_>>().len(),
        SameLevel::Rack => nodes.iter().map(|node| chips.rack(node)).collect::<BTreeSet<_>>().len(),
    };
    if places > 1 {
        findings.add(Rule::GangIncomplete, format!("the replicas of job {job} lie in {places} places, not in one"));
    }
}
