//! Faults of chips: which of them are news, what they do to the chip and to who has it, and what ends them. A chip comes
//! back into service by evidence from its node or by an admin's word, never by the passing of time.

use crate::cluster::Cluster;
use crate::command::{Ack, Refusal};
use crate::draft::Draft;
use crate::fleet::Chip;
use crate::node_loss::next_of;
use chiptide_model::{
    Cause, ChipFault, ChipId, Event, Fault, FaultClass, FaultEnd, JobState, LeaseId, LeaseState, Millis, Next, NodeId,
    Outcome, Quarantine,
};

/// A second fault that asks for a reset within this time is one for people: the reset did not help.
const RESET_HELPS_FOR: Millis = Millis::from_secs(7 * 24 * 3600);

/// A job that lost so many attempts to faults of its own kind of work fails: the next chip would fare no better.
const LOST_ATTEMPTS_MAX: u32 = 3;

/// Whether a fault that a node tells of its chip would change something.
pub(crate) fn is_news(cluster: &Cluster, (chip, fault): &ChipFault) -> bool {
    let Some(chip) = cluster.chip(chip) else { return false };
    match (chip.faults.get(fault.key), &fault.ended) {
        (None, None) => chip.faults.has_room() || !fault.class.takes_out(),
        (None, Some(_)) => false,
        (Some(known), Some(FaultEnd::Evidence { .. })) => known.is_open() && known.class.ends_by_evidence(),
        (Some(_), _) => false,
    }
}

/// Takes in what a node tells of its chips' faults.
pub(crate) fn accept(draft: &mut Draft<'_>, told: Vec<ChipFault>) {
    for told in told {
        // Earlier facts of the same report may have settled it.
        if !is_news(draft.cluster, &told) {
            continue;
        }
        let (chip, fault) = told;
        match fault.ended.clone() {
            None => faulted(draft, chip, fault),
            Some(end) => {
                draft.emit(Event::ChipFaultEnded { chip: chip.clone(), fault: fault.key, end });
                settle(draft, &chip);
                settle_siblings(draft, &chip, fault.class);
            }
        }
    }
}

fn faulted(draft: &mut Draft<'_>, chip: ChipId, mut fault: Fault) {
    if fault.class == FaultClass::Reset && draft.cluster.chip(&chip).is_some_and(|known| was_reset(known, &fault)) {
        fault.class = FaultClass::Human;
        fault.detail = format!("{} (again within {RESET_HELPS_FOR} of a reset)", fault.detail);
        // What runs there is lost all the same.
        end_leases(draft, &chip, &fault);
    }
    if fault.class.ends_leases() {
        end_leases(draft, &chip, &fault);
    }
    draft.emit(Event::ChipFaulted { chip: chip.clone(), fault: fault.clone() });
    settle(draft, &chip);
    settle_siblings(draft, &chip, fault.class);
}

fn was_reset(chip: &Chip, fault: &Fault) -> bool {
    let earlier =
        |known: &&Fault| known.class == FaultClass::Reset && fault.key.since.since(known.key.since) <= RESET_HELPS_FOR;
    chip.faults.all().iter().filter(earlier).any(|known| known.ended.is_some())
}

/// Ends every live lease on the chip, each with a reason its owner can read.
fn end_leases(draft: &mut Draft<'_>, chip: &ChipId, fault: &Fault) {
    let Some(known) = draft.cluster.chip(chip) else { return };
    let node = draft.cluster.fleet.nodes[known.node].id.clone();
    let live = |hold: &&crate::fleet::ChipHold| hold.vacate_by.is_none();
    let leases: Vec<LeaseId> = known.holds.iter().filter(live).map(|hold| hold.lease).collect();
    for lease in leases {
        let detail = format!("chip fault on {chip}: {fault}");
        let next = next_after(draft.cluster, lease, fault, &detail);
        draft.end_lease(lease, Cause::Fault { node: node.clone(), detail }, next);
    }
}

/// A job whose chip failed is served again, elsewhere. One that lost attempt after attempt to faults that work itself can
/// cause (a bad memory access, say) fails: `preemptions` are not held against it.
fn next_after(cluster: &Cluster, lease: LeaseId, fault: &Fault, detail: &str) -> Next {
    let Some(record) = cluster.lease(lease) else { return Next::Pending };
    let Some(job) = cluster.job(record.job) else { return Next::Pending };
    let being_taken = matches!(record.state, LeaseState::Revoking { .. });
    let lost = job.attempt.saturating_sub(job.preemptions);
    let gives_up = fault.class == FaultClass::Job
        && !being_taken
        && lost >= LOST_ATTEMPTS_MAX
        && !matches!(job.state, JobState::Ended(_));
    match gives_up {
        true => Next::Ended(Outcome::Failed { reason: format!("{detail} (attempt {})", job.attempt) }),
        false => next_of(record),
    }
}

/// Makes the quarantine of a chip what its faults ask for. An admin's, and that for a lease the ledger has forgotten, stand
/// above all faults.
pub(crate) fn settle(draft: &mut Draft<'_>, chip: &ChipId) {
    let Some(known) = draft.cluster.chip(chip) else { return };
    let wanted = wanted(draft.cluster, known);
    match (&known.quarantine, wanted) {
        (Some(Quarantine::Admin { .. } | Quarantine::Orphaned { .. }), _) => {}
        (Some(Quarantine::NotVacated { .. }) | None, None) => {}
        (Some(_), None) => draft.emit(Event::ChipRestored { chip: chip.clone() }),
        (have, Some(quarantine)) if *have != Some(quarantine.clone()) => {
            draft.emit(Event::ChipQuarantined { chip: chip.clone(), quarantine });
        }
        _ => {}
    }
}

/// A node's chips are not those of before: a new one shares the fate of the node.
pub(crate) fn settle_node(draft: &mut Draft<'_>, node: &NodeId) {
    let chips = draft.cluster.node(node).map(|node| node.chips.clone()).unwrap_or_default();
    for chip in chips {
        let id = draft.cluster.fleet.chips[chip].facts.id.clone();
        settle(draft, &id);
    }
}

/// A fault for which the node must be restarted keeps the other chips of the node out of service too.
fn settle_siblings(draft: &mut Draft<'_>, chip: &ChipId, class: FaultClass) {
    if class != FaultClass::Node {
        return;
    }
    for sibling in siblings(draft.cluster, chip) {
        settle(draft, &sibling);
    }
}

fn siblings(cluster: &Cluster, chip: &ChipId) -> Vec<ChipId> {
    let Some(known) = cluster.chip(chip) else { return Vec::new() };
    let ids = cluster.fleet.nodes[known.node].chips.iter().map(|&ix| cluster.fleet.chips[ix].facts.id.clone());
    ids.filter(|id| id != chip).collect()
}

/// The quarantine that faults ask for: the chip's own first, then those of its node.
pub(crate) fn wanted(cluster: &Cluster, chip: &Chip) -> Option<Quarantine> {
    if let Some(fault) = chip.faults.gravest_open() {
        return Some(Quarantine::Fault { class: fault.class, detail: fault.to_string() });
    }
    let others = cluster.fleet.nodes[chip.node].chips.iter().map(|&ix| &cluster.fleet.chips[ix]);
    let restarts = |other: &&Chip| other.faults.all().iter().any(|f| f.class == FaultClass::Node && f.is_open());
    others
        .filter(|other| other.facts.id != chip.facts.id)
        .find(restarts)
        .map(|other| Quarantine::NodeFault { chip: other.facts.id.clone() })
}

impl Draft<'_> {
    /// Takes a chip out of service at an admin's word. Who has it may finish.
    pub(crate) fn quarantine(&mut self, chip: ChipId, who: String, reason: String) -> Result<Ack, Refusal> {
        let known = self.cluster.chip(&chip).ok_or_else(|| Refusal::NoSuchChip(chip.clone()))?;
        // That one must not be forgotten again.
        if let Some(Quarantine::Orphaned { lease, .. }) = known.quarantine {
            return Err(Refusal::NotVacated { chip, lease });
        }
        self.emit(Event::ChipQuarantined { chip: chip.clone(), quarantine: Quarantine::Admin { who, why: reason } });
        Ok(Ack::Chip(chip))
    }

    /// Brings a chip back into service at an admin's word. Refused for one that still owes a proof of vacancy: nobody's
    /// word stands in for that.
    pub(crate) fn release_chip(&mut self, chip: ChipId, who: String, reason: String) -> Result<Ack, Refusal> {
        let known = self.cluster.chip(&chip).ok_or_else(|| Refusal::NoSuchChip(chip.clone()))?;
        let owes = known.holds.iter().find(|hold| hold.vacate_by.is_some());
        match &known.quarantine {
            None => return Err(Refusal::NotQuarantined(chip)),
            Some(Quarantine::NodeFault { chip: other }) => {
                return Err(Refusal::HeldByNodeFault { chip, other: other.clone() });
            }
            Some(Quarantine::NotVacated { lease } | Quarantine::Orphaned { lease, .. }) => {
                return Err(Refusal::NotVacated { chip, lease: *lease });
            }
            Some(_) if let Some(hold) = owes => return Err(Refusal::NotVacated { chip, lease: hold.lease }),
            Some(_) => {}
        }
        self.emit(Event::ChipReleased { chip: chip.clone(), who, reason });
        settle(self, &chip);
        settle_siblings(self, &chip, FaultClass::Node);
        Ok(Ack::Chip(chip))
    }
}
