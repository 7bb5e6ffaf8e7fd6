//! Nodes out of service at an operator's word: cordoned, drained, given back.

use crate::command::{Ack, Refusal};
use crate::draft::{Draft, after};
use chiptide_model::{Cause, Cordon, Event, Lease, LeaseId, NodeId, Timestamp};

impl Draft<'_> {
    /// Nothing more is granted on the node; who is there may finish. What is promised there is given up in this round.
    pub(crate) fn cordon(&mut self, node: NodeId, who: String, reason: String) -> Result<Ack, Refusal> {
        let since = self.since(&node)?;
        let cordon = Cordon { who, reason, since, drain_by: None };
        self.emit(Event::NodeCordoned { node: node.clone(), cordon });
        Ok(Ack::Node(node))
    }

    /// Cordons the node and gives notice to every lease that has a replica there, preemptible or not: each leaves by its
    /// grace, or by the deadline of the drain if that is later. Its job waits again.
    pub(crate) fn drain(
        &mut self,
        node: NodeId,
        who: String,
        reason: String,
        by: Option<Timestamp>,
    ) -> Result<Ack, Refusal> {
        let (since, now) = (self.since(&node)?, self.now());
        let cordon = Cordon { who, reason, since, drain_by: Some(by.unwrap_or(now).max(now)) };
        self.emit(Event::NodeCordoned { node: node.clone(), cordon });
        let there = self.cluster.node(&node).map(|known| known.leases.clone()).unwrap_or_default();
        for lease in there {
            self.drain_lease(lease, &node, by.unwrap_or(now));
        }
        Ok(Ack::Node(node))
    }

    fn drain_lease(&mut self, id: LeaseId, node: &NodeId, by: Timestamp) {
        let now = self.now();
        let Some(lease) = self.cluster.lease(id).filter(|lease| Lease::is_active(lease)) else { return };
        let grace = self.cluster.job(lease.job).map(|job| job.spec.grace).unwrap_or_default();
        let (cause, deadline) = (Cause::Drain { node: node.clone() }, (now + grace).max(by));
        self.revoke(id, &cause, deadline);
        if deadline <= now {
            let next = after(&cause);
            self.end_lease(id, cause, next);
        }
    }

    /// Gives the node back to work. Notices that were given stand.
    pub(crate) fn uncordon(&mut self, node: NodeId, who: String, reason: String) -> Result<Ack, Refusal> {
        let known = self.cluster.node(&node).ok_or_else(|| Refusal::NotRegistered(node.clone()))?;
        if known.cordon.is_none() {
            return Err(Refusal::NotCordoned(node));
        }
        self.emit(Event::NodeUncordoned { node: node.clone(), who, reason });
        Ok(Ack::Node(node))
    }

    /// Since when the node takes no work: since now, or since it was cordoned first.
    fn since(&self, node: &NodeId) -> Result<Timestamp, Refusal> {
        let known = self.cluster.node(node).ok_or_else(|| Refusal::NotRegistered(node.clone()))?;
        Ok(known.cordon.as_ref().map_or(self.now(), |cordon| cordon.since))
    }
}
