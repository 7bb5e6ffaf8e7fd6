//! How each event changes the cluster. Total: an event that does not fit the state is reported, never panics, so a
//! corrupt log is found and named instead of taking the daemon down.

use crate::cluster::{Claim, Cluster};
use crate::fleet::Node;
use crate::reservations::Reservation;
use chiptide_model::{Event, FaultEnd, Lease, LeaseState, Timestamp};
use std::collections::BTreeSet;
use std::fmt;

/// An event names something that is not there, or is not in a state it can change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unfounded {
    /// The event's kind.
    pub event: &'static str,
    /// What is missing.
    pub missing: String,
}

impl fmt::Display for Unfounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "event {} does not fit the state: {}", self.event, self.missing)
    }
}
impl std::error::Error for Unfounded {}

mod fleet;
mod jobs;
mod leases;
mod reservations;

type Applied = Result<(), String>;

impl Cluster {
    /// Applies the next event of the log, which happened at `at`.
    pub fn apply(&mut self, at: Timestamp, event: &Event) -> Result<(), Unfounded> {
        self.seq += 1;
        self.at = at;
        self.looked_at = self.looked_at.max(at);
        self.ripen(at);
        let applied = match event {
            Event::LeaderTookOver { epoch } => self.on_took_over(at, *epoch),
            Event::PolicyApplied { policy, .. } => self.on_policy(at, policy),
            Event::NodeRegistered { node, session, boot_id, facts, chips } => {
                let fresh = Node {
                    id: node.clone(),
                    facts: facts.clone(),
                    session: *session,
                    boot_id: boot_id.clone(),
                    unknown_since: None,
                    cordon: None,
                    chips: Vec::new(),
                    cpu_free: facts.cpu_milli,
                    memory_free: facts.memory_mib,
                    cpu_claimed: 0,
                    memory_claimed: 0,
                    cpu_reserved: 0,
                    memory_reserved: 0,
                    leases: BTreeSet::new(),
                    orders_revision: 0,
                };
                self.on_registered(at, fresh, chips)
            }
            Event::NodeHeard { node } => self.on_known(node, None, at),
            Event::NodeSilent { node } => self.on_known(node, Some(at), at),
            Event::NodeDeclaredOff { node, .. } => {
                self.node_at(node).map(drop).ok_or_else(|| format!("no node {node}"))
            }
            Event::NodeCordoned { node, cordon } => self.on_cordoned(node, Some(cordon)),
            Event::NodeUncordoned { node, .. } => self.on_cordoned(node, None),
            Event::DatabaseReplaced { .. } => self.on_database_replaced(at),
            Event::ChipEpochRaised { chip, epoch } => self.on_epoch_raised(chip, *epoch),
            Event::ChipHealthChanged { chip, health } => self.on_chip(chip, |chip| chip.health = health.clone()),
            Event::ChipQuarantined { chip, quarantine } => self.on_quarantine(chip, Some(quarantine)),
            Event::ChipRestored { chip } => self.on_quarantine(chip, None),
            Event::ChipFaulted { chip, fault } => self.on_chip(chip, |chip| chip.faults.add(fault.clone())),
            Event::ChipFaultEnded { chip, fault, end } => self.on_chip(chip, |chip| {
                chip.faults.end(*fault, end.clone());
            }),
            Event::ChipReleased { chip, who, reason } => {
                self.on_released(chip, &FaultEnd::Admin { who: who.clone(), reason: reason.clone() })
            }
            Event::ChipVacated { chip, lease, .. } => self.on_vacated(chip, *lease),
            Event::JobSubmitted { job, place, spec } => self.on_submitted(at, *job, *place, spec),
            Event::JobStarted { job } => self.on_started(at, *job),
            Event::JobCheckpointed { job, .. } => self.on_checkpointed(at, *job),
            Event::WorkEnded { lease, .. } => {
                self.leases.get(lease).map(drop).ok_or_else(|| format!("no lease {lease}"))
            }
            Event::JobRestarted { job, run } => self.on_restarted(*job, *run),
            Event::JobEnded { job, outcome } => self.on_job_ended(at, *job, outcome.clone()),
            Event::ClaimMade { job, placements, victims, deadline, choice } => {
                let (placements, victims, choice) = (placements.clone(), victims.clone(), choice.clone());
                self.on_claim(at, *job, Claim { placements, victims, since: at, deadline: *deadline, choice })
            }
            Event::ClaimDropped { job, .. } => self.on_claim_dropped(at, *job),
            Event::ReservationMade { holder, starts_at, ends_at, placements } => {
                let (starts_at, ends_at, placements) = (*starts_at, *ends_at, placements.clone());
                self.on_reserved(holder, Reservation { placements, since: at, starts_at, ends_at, open: false })
            }
            Event::ReservationOpened { holder } => self.on_reservation_opened(holder),
            Event::ReservationDropped { holder, .. } => self.on_reservation_dropped(holder),
            Event::LeaseGranted { lease, job, attempt, placements, expires_at, ends_at, extra } => {
                self.on_granted(Lease {
                    id: *lease,
                    job: *job,
                    attempt: *attempt,
                    extra: *extra,
                    placements: placements.clone(),
                    granted_at: at,
                    expires_at: *expires_at,
                    ends_at: *ends_at,
                    state: LeaseState::Active,
                    confirmed: BTreeSet::new(),
                    extended: false,
                    policy_version: self.policy.version,
                })
            }
            Event::LeaseConfirmed { lease, node } => self.change_lease(*lease, |lease| {
                lease.confirmed.insert(node.clone());
            }),
            Event::LeaseRenewed { lease, expires_at } => {
                self.change_lease(*lease, |lease| lease.expires_at = Some(*expires_at))
            }
            Event::LeaseRevoked { lease, cause, deadline } => self.on_revoked(at, *lease, cause, *deadline),
            Event::LeaseExtended { lease, deadline, .. } => self.on_extended(at, *lease, *deadline),
            Event::LadderClimbed { lease, .. } => {
                self.leases.get(lease).map(drop).ok_or_else(|| format!("no lease {lease}"))
            }
            Event::LeaseEnded { lease, cause, next } => self.on_lease_ended(at, *lease, cause, next),
        };
        applied.map_err(|missing| Unfounded { event: event.kind(), missing })
    }
}
