//! What the clock does to a lease because of its nodes: one that is not heard for too long, one that does not start it.
//! Both moments follow from the lease, its job, the policy and what is known of the nodes, and are kept as timers in step
//! with these.

use crate::cluster::{Cluster, Timer};
use crate::draft::{Draft, after};
use crate::fleet::{ChipIx, NodeIx};
use chiptide_model::{Cause, Event, Lease, LeaseId, LeaseState, Next, NodeId, OnNodeLoss, Timestamp};

/// When the clock next acts on a lease, and how: by its own ends, by the loss of a node, by a start that does not come.
pub(crate) type Dues = [Option<(Timestamp, Timer)>; 3];

impl Cluster {
    /// The timers a lease has now.
    pub(crate) fn dues(&self, lease: &Lease) -> Dues {
        if !lease.is_live() {
            return [None, None, None];
        }
        [
            self.own_end(lease).map(|at| (at, Timer::Lease(lease.id))),
            self.lost_at(lease).map(|(at, _)| (at, Timer::Lost(lease.id))),
            self.start_by(lease).map(|at| (at, Timer::Start(lease.id))),
        ]
    }

    /// When a lease reaches its own end. Work that waits for its node outlives its notice with it: what cannot be told to
    /// stop, and cannot say that it has, is not called over by the clock.
    fn own_end(&self, lease: &Lease) -> Option<Timestamp> {
        let rule = self.jobs.get(&lease.job)?.spec.on_node_loss;
        let waits = rule == OnNodeLoss::Wait && matches!(lease.state, LeaseState::Revoking { .. });
        let unheard = |node: &NodeId| self.node(node).is_some_and(|node| node.unknown_since.is_some());
        if waits && lease.placements.iter().any(|placement| unheard(&placement.node)) {
            return None;
        }
        match (lease.is_active(), lease.expires_at) {
            (true, Some(expires_at)) => {
                Some(lease.ends_at.into_iter().fold(self.renewable(lease, expires_at), Timestamp::min))
            }
            _ => lease.next_due(),
        }
    }

    /// When a lease that has to be renewed lapses: a holder who could not renew has all of its time from when it can.
    fn renewable(&self, lease: &Lease, expires_at: Timestamp) -> Timestamp {
        let ttl = self.jobs.get(&lease.job).and_then(|job| job.spec.lease_ttl);
        let anew = self.resumed_at.max(self.took_over_at).zip(ttl).map(|(since, ttl)| since + ttl);
        anew.map_or(expires_at, |anew| anew.max(expires_at))
    }

    /// When a lease is called ended because a node of it is not heard, and which node. A new leader counts every node as
    /// heard until it took the lead: its predecessor may have renewed them until then.
    pub(crate) fn lost_at(&self, lease: &Lease) -> Option<(Timestamp, NodeIx)> {
        let unheard = |placement: &chiptide_model::Placement| {
            let ix = *self.nodes_by_id.get(&placement.node)?;
            let since = self.fleet.nodes[ix].unknown_since?;
            Some((self.took_over_at.map_or(since, |took_over| took_over.max(since)), ix))
        };
        let (since, node) = lease.placements.iter().filter_map(unheard).min()?;
        let rule = self.jobs.get(&lease.job)?.spec.on_node_loss;
        let wait = self.policy.node_loss.ends_after(rule, self.took_over_at == Some(since))?;
        Some((since + wait, node))
    }

    /// By when every node must have confirmed a lease. A node that is not heard cannot say so, and is waited for.
    fn start_by(&self, lease: &Lease) -> Option<Timestamp> {
        let bound = self.policy.bounds.start.filter(|_| lease.is_active())?;
        let unconfirmed = || lease.placements.iter().map(|p| &p.node).filter(|node| !lease.confirmed.contains(*node));
        let heard = |id: &NodeId| self.node(id).is_some_and(|node| node.unknown_since.is_none());
        unconfirmed().next()?;
        let answers_since =
            unconfirmed().filter_map(|id| self.answers_since.get(self.nodes_by_id.get(id)?)).max().copied();
        let since = answers_since.map_or(lease.granted_at, |since| since.max(lease.granted_at));
        unconfirmed().all(heard).then(|| since + bound)
    }

    /// The proofs of vacancy that a chip owes, each with when it is overdue. The bound runs while the node answers: it stands
    /// still while the node is not heard, and begins anew when it is.
    pub(crate) fn proofs_due(&self, ix: ChipIx) -> Vec<(Timestamp, Timer)> {
        let chip = &self.fleet.chips[ix];
        let node = &self.fleet.nodes[chip.node];
        if chip.quarantine.is_some() || node.unknown_since.is_some() {
            return Vec::new();
        }
        let anew = self.answers_since.get(&chip.node).map(|since| *since + self.policy.bounds.vacate);
        let due = |by: Timestamp| anew.map_or(by, |anew| anew.max(by));
        let owed = chip.holds.iter().filter_map(|hold| Some((due(hold.vacate_by?), Timer::Vacate(ix, hold.lease))));
        owed.collect()
    }

    /// All proofs owed, each with when it is overdue.
    pub(crate) fn proofs_of_all(&self) -> Vec<(Timestamp, Timer)> {
        (0..self.fleet.chips.len()).flat_map(|chip| self.proofs_due(chip)).collect()
    }

    /// Those of one node.
    pub(crate) fn proofs_of_node(&self, node: NodeIx) -> Vec<(Timestamp, Timer)> {
        self.fleet.nodes[node].chips.iter().flat_map(|&chip| self.proofs_due(chip)).collect()
    }

    /// Takes timers away and sets others.
    pub(crate) fn move_timers(&mut self, before: Vec<(Timestamp, Timer)>, after: Vec<(Timestamp, Timer)>) {
        for timer in &before {
            self.timers.remove(timer);
        }
        self.timers.extend(after);
    }

    /// Nobody could answer until now: the ledger was away, or its daemon. Bounds on what nodes have to say run anew.
    pub fn resume(&mut self, now: Timestamp) {
        let (before, proofs) = (self.dues_of_all(), self.proofs_of_all());
        self.answers_since = (0..self.fleet.nodes.len()).map(|node| (node, now)).collect();
        self.resumed_at = Some(now);
        let after = self.proofs_of_all();
        self.move_timers(proofs, after);
        self.retime(before);
    }

    /// The timers of a node's leases, to be compared after a change.
    pub(crate) fn dues_of_node(&self, node: NodeIx) -> Vec<(LeaseId, Dues)> {
        let leases = self.fleet.nodes[node].leases.iter().filter_map(|id| self.leases.get(id));
        leases.filter(|lease| lease.is_live()).map(|lease| (lease.id, self.dues(lease))).collect()
    }

    /// The same of every lease.
    pub(crate) fn dues_of_all(&self) -> Vec<(LeaseId, Dues)> {
        self.leases.values().filter(|lease| lease.is_live()).map(|lease| (lease.id, self.dues(lease))).collect()
    }

    /// Moves the timers of leases to where they belong after a change.
    pub(crate) fn retime(&mut self, before: Vec<(LeaseId, Dues)>) {
        for (id, before) in before {
            let after = self.leases.get(&id).map(|lease| self.dues(lease)).unwrap_or_default();
            for (before, after) in before.into_iter().zip(after).filter(|(before, after)| before != after) {
                before.map(|timer| self.timers.remove(&timer));
                after.map(|timer| self.timers.insert(timer));
            }
        }
    }
}

/// A node of this lease has not been heard for as long as the job's rule allows: the lease is over, the job waits again.
pub(crate) fn end_lost(draft: &mut Draft<'_>, id: LeaseId) {
    let Some((lease, node)) = draft.cluster.lease(id).and_then(|lease| Some((lease, draft.cluster.lost_at(lease)?.1)))
    else {
        return;
    };
    let next = next_of(lease);
    let cause = Cause::NodeLost { node: draft.cluster.fleet.nodes[node].id.clone() };
    draft.end_lease(id, cause, next);
}

/// A node of this lease does not start it: nobody waits for it any longer.
pub(crate) fn end_unstarted(draft: &mut Draft<'_>, id: LeaseId) {
    let Some(lease) = draft.cluster.lease(id) else { return };
    let Some(node) = lease.nodes().into_iter().find(|node| !lease.confirmed.contains(node)) else { return };
    let bound = draft.cluster.policy.bounds.start.unwrap_or_default();
    draft.end_lease(id, Cause::Fault { node, detail: format!("not started within {bound}") }, Next::Pending);
}

/// An admin has declared a machine off. Every lease there is over; the chips are granted again only once proven vacant.
pub(crate) fn declare_off(draft: &mut Draft<'_>, node: NodeId, by: String, reason: String) {
    let leases: Vec<LeaseId> =
        draft.cluster.node(&node).map_or_else(Vec::new, |known| known.leases.iter().copied().collect());
    draft.emit(Event::NodeDeclaredOff { node: node.clone(), by, reason: reason.clone() });
    for id in leases {
        if let Some(lease) = draft.cluster.lease(id).filter(|lease| lease.is_live()) {
            let next = next_of(lease);
            let cause = Cause::Fault { node: node.clone(), detail: format!("declared off: {reason}") };
            draft.end_lease(id, cause, next);
        }
    }
}

/// What becomes of the job: a lease that was on its way out already ends the way it was to end.
pub(crate) fn next_of(lease: &Lease) -> Next {
    match &lease.state {
        LeaseState::Revoking { cause, .. } => after(cause),
        LeaseState::Active | LeaseState::Ended { .. } => Next::Pending,
    }
}
