//! A node registers: a new session, its facts and chips, and what a reboot means for its leases.

use crate::command::{Ack, Refusal};
use crate::draft::Draft;
use crate::faults;
use crate::forgotten::{self, Seen};
use chiptide_model::{Cause, ChipFacts, Event, Health, LeaseId, Next, NodeFacts, NodeId, SessionId};

/// Accepts a registration. A chip that belongs to another node refuses it whole. A new boot id ends the leases that
/// ran there: nothing of them can have survived, but their chips still have to be proven vacant.
pub(crate) fn register(
    draft: &mut Draft<'_>,
    node: NodeId,
    session: SessionId,
    boot_id: String,
    facts: NodeFacts,
    chips: Vec<(ChipFacts, Health)>,
    seen: &[Seen],
) -> Result<Ack, Refusal> {
    let cluster = &*draft.cluster;
    for (chip, _) in &chips {
        if let Some(known) = cluster.chip(&chip.id) {
            let owner = &cluster.fleet.nodes[known.node].id;
            if *owner != node {
                return Err(Refusal::ChipElsewhere { chip: chip.id.clone(), node: owner.clone() });
            }
        }
    }
    let rebooted = cluster.node(&node).filter(|known| known.boot_id != boot_id);
    let lost: Vec<LeaseId> = rebooted.map(|known| known.leases.iter().copied().collect()).unwrap_or_default();
    draft.emit(Event::NodeRegistered { node: node.clone(), session, boot_id, facts, chips });
    faults::settle_node(draft, &node);
    forgotten::remember(draft, &node, seen);
    for lease in lost {
        if draft.cluster.lease(lease).is_some_and(|lease| lease.is_live()) {
            let cause = Cause::Fault { node: node.clone(), detail: "the node rebooted".into() };
            draft.end_lease(lease, cause, Next::Pending);
        }
    }
    Ok(Ack::Registered(session))
}
