//! What a node remembers and the ledger does not: after a failover that lost its last commits, a node has seen lease epochs
//! that were never granted, as far as the tables say. The chip's epoch goes above them, and the chip is out of service until
//! the node has proven that nothing of the forgotten lease is left.

use crate::cluster::Cluster;
use crate::draft::Draft;
use crate::node_loss::next_of;
use chiptide_model::{Cause, ChipId, Event, LeaseId, NodeId, Quarantine};

/// Greatest lease epoch that a node may claim to have seen; more is no epoch of ours.
pub const EPOCH_SEEN_MAX: u64 = 1 << 53;

/// The highest lease epoch a node has seen of a chip, and the lease that had it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// The chip.
    pub chip: ChipId,
    /// The lease.
    pub lease: LeaseId,
    /// The epoch.
    pub epoch: u64,
}

/// A grant that a node does not carry, because of a higher epoch it has seen, or of an equal one under another lease.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RefusedGrant {
    /// The lease.
    pub lease: LeaseId,
    /// The chip.
    pub chip: ChipId,
    /// The epoch of the grant.
    pub epoch: u64,
    /// The highest epoch seen of the chip.
    pub seen: u64,
    /// The lease that had it, where the node says so.
    pub seen_lease: Option<LeaseId>,
}

/// Whether this refuses a grant that stands.
pub(crate) fn is_refusal(cluster: &Cluster, node: &NodeId, refused: &RefusedGrant) -> bool {
    let stands = cluster.lease(refused.lease).is_some_and(|lease| {
        let here = lease.placements.iter().filter(|placement| placement.node == *node);
        let mut holds = here.flat_map(|placement| &placement.holds);
        lease.is_live() && holds.any(|hold| hold.chip == refused.chip && hold.epoch == refused.epoch)
    });
    stands && (refused.epoch..=EPOCH_SEEN_MAX).contains(&refused.seen)
}

/// Answers a refusal: the gang is torn down as a whole, its job waits again at its place, and the next grant of the chip
/// comes under an epoch that the node has not seen.
pub(crate) fn tear_down(draft: &mut Draft<'_>, node: &NodeId, refused: &RefusedGrant) {
    if !is_refusal(draft.cluster, node, refused) {
        return;
    }
    let RefusedGrant { lease, chip, epoch, seen, seen_lease } = refused;
    go_above(draft, chip, *seen, seen_lease.filter(|other| other != lease));
    let Some(record) = draft.cluster.lease(*lease) else { return };
    let next = next_of(record);
    let detail = format!("refused epoch {epoch} of chip {chip}, having seen {seen}");
    draft.end_lease(*lease, Cause::Fault { node: node.clone(), detail }, next);
}

/// Takes in what a node says at its registration that it has seen.
pub(crate) fn remember(draft: &mut Draft<'_>, node: &NodeId, seen: &[Seen]) {
    for Seen { chip, lease, epoch } in seen {
        let news = draft.cluster.chip(chip).is_some_and(|known| {
            draft.cluster.fleet.nodes[known.node].id == *node && known.epoch < *epoch && *epoch <= EPOCH_SEEN_MAX
        });
        if news {
            go_above(draft, chip, *epoch, Some(*lease));
        }
    }
}

fn go_above(draft: &mut Draft<'_>, id: &ChipId, seen: u64, by: Option<LeaseId>) {
    let Some(chip) = draft.cluster.chip(id) else { return };
    let known = |lease: LeaseId| chip.holds.iter().any(|hold| hold.lease == lease);
    let stranger = by.filter(|lease| !known(*lease));
    // An admin's word keeps it out of service just as well; a fault may end before the proof comes.
    let may_quarantine = !matches!(chip.quarantine, Some(Quarantine::Orphaned { .. } | Quarantine::Admin { .. }));
    if chip.epoch < seen {
        draft.emit(Event::ChipEpochRaised { chip: id.clone(), epoch: seen });
    }
    if let Some(lease) = stranger.filter(|_| may_quarantine) {
        let quarantine = Quarantine::Orphaned { lease, epoch: seen };
        draft.emit(Event::ChipQuarantined { chip: id.clone(), quarantine });
    }
}

/// Whether this proves a chip vacant of a lease that the ledger has forgotten.
pub(crate) fn is_proof(cluster: &Cluster, chip: &ChipId, lease: LeaseId, seen: u64) -> bool {
    let quarantine = cluster.chip(chip).and_then(|chip| chip.quarantine.as_ref());
    matches!(quarantine, Some(Quarantine::Orphaned { lease: orphan, epoch }) if *orphan == lease && seen >= *epoch)
}
