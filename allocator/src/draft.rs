//! The draft: a cluster being decided on. Every change goes through an event, applied at once.

use crate::apply::Unfounded;
use crate::cluster::Cluster;
use crate::decide::Round;
use crate::reservations::{Use, make_way, served};
use chiptide_model::{
    Cause, Event, JobId, JobState, Lease, LeaseId, LeaseState, Millis, Next, Outcome, Placement, ReservationDrop,
    Timestamp,
};
use std::collections::BTreeMap;
use uuid::Uuid;

/// The draft with the events emitted so far. Every change goes through [`Draft::emit`].
pub(crate) struct Draft<'a> {
    pub cluster: &'a mut Cluster,
    pub round: Round,
    events: Vec<Event>,
    minted: u64,
    unfounded: Option<Unfounded>,
}

impl<'a> Draft<'a> {
    pub(crate) fn of(cluster: &'a mut Cluster, round: Round) -> Draft<'a> {
        Draft { cluster, round, events: Vec::new(), minted: 0, unfounded: None }
    }

    /// What was emitted, and the first event that the cluster refused.
    pub(crate) fn into_events(self) -> (Vec<Event>, Option<Unfounded>) {
        (self.events, self.unfounded)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.round.now
    }

    /// Emits an event and applies it to the draft.
    pub(crate) fn emit(&mut self, event: Event) {
        if let Err(unfounded) = self.cluster.apply(self.round.now, &event) {
            self.unfounded.get_or_insert(unfounded);
        }
        self.events.push(event);
    }

    /// Gives notice of a lease, and the same of the extra replicas that end with it.
    pub(crate) fn revoke(&mut self, id: LeaseId, cause: &Cause, deadline: Timestamp) {
        for lease in self.cluster.with_extras(id) {
            if self.cluster.lease(lease).is_some_and(Lease::is_active) {
                self.emit(Event::LeaseRevoked { lease, cause: cause.clone(), deadline });
            }
        }
    }

    /// Ends a live lease, after the extra replicas that end with it. The end of an extra replica changes nothing else
    /// about its job.
    pub(crate) fn end_lease(&mut self, id: LeaseId, cause: Cause, next: Next) {
        for lease in self.cluster.with_extras(id) {
            let Some(record) = self.cluster.lease(lease).filter(|lease| lease.is_live()) else { continue };
            let next = if record.extra { Next::Unchanged } else { next.clone() };
            let cause = match &record.state {
                LeaseState::Revoking { cause, .. } if lease != id => cause.clone(),
                _ => cause.clone(),
            };
            self.emit(Event::LeaseEnded { lease, cause, next });
        }
    }

    /// Grants a job its gang on chips that are free, each under a new epoch.
    pub(crate) fn grant(&mut self, id: JobId, mut placements: Vec<Placement>) {
        let Some(job) = self.cluster.job(id) else { return };
        debug_assert_eq!(job.state, JobState::Pending);
        let (attempt, spec) = (job.attempt + 1, job.spec.clone());
        self.raise_epochs(&mut placements);
        let until = |span: Option<Millis>| span.map(|span| self.now() + span);
        let (expires_at, ends_at) = (until(spec.lease_ttl), until(spec.max_duration));
        let lease = self.mint_lease();
        make_way(self, id, &placements, Use::Now);
        self.emit(Event::LeaseGranted { lease, job: id, attempt, placements, expires_at, ends_at, extra: false });
        served(self, id, ReservationDrop::Started);
    }

    /// Grants one extra replica to an elastic job that holds its base lease. It ends with that, so it has no end of
    /// its own.
    pub(crate) fn grant_extra(&mut self, id: JobId, mut placements: Vec<Placement>) {
        let Some(attempt) = self.cluster.job(id).map(|job| job.attempt) else { return };
        self.raise_epochs(&mut placements);
        let lease = self.mint_lease();
        let (expires_at, ends_at) = (None, None);
        self.emit(Event::LeaseGranted { lease, job: id, attempt, placements, expires_at, ends_at, extra: true });
    }

    fn raise_epochs(&self, placements: &mut [Placement]) {
        let mut epochs = BTreeMap::new();
        for hold in placements.iter_mut().flat_map(|placement| &mut placement.holds) {
            let known = self.cluster.chip(&hold.chip).map_or(0, |chip| chip.epoch);
            let epoch = epochs.entry(hold.chip.clone()).or_insert(known);
            *epoch += 1;
            hold.epoch = *epoch;
        }
    }

    /// A lease id that only this round can mint: its seed, mixed with a counter.
    fn mint_lease(&mut self) -> LeaseId {
        self.minted += 1;
        let mixed = self.round.seed ^ (u128::from(self.minted).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835));
        LeaseId(uuid::Builder::from_custom_bytes(Uuid::from_u128(mixed).into_bytes()).into_uuid())
    }
}

/// What becomes of a job whose lease ends for this cause.
pub(crate) fn after(cause: &Cause) -> Next {
    let failed = |reason: &str| Next::Ended(Outcome::Failed { reason: reason.into() });
    match cause {
        Cause::Preempt { .. } | Cause::Reclaim { .. } | Cause::Consolidate { .. } => Next::Pending,
        Cause::NodeLost { .. } | Cause::Fenced { .. } | Cause::Fault { .. } | Cause::Released | Cause::Drain { .. } => {
            Next::Pending
        }
        Cause::MaxDuration => failed("max_duration"),
        Cause::Expired => failed("lease_expired"),
        Cause::Cancelled => Next::Ended(Outcome::Cancelled),
        Cause::Done => Next::Ended(Outcome::Succeeded),
    }
}
