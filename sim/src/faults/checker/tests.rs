//! Small histories, each broken in one way. An invariant that no history here breaks would be one that cannot fail.

use super::{History, Invariant, Proof};
use crate::audit::Entry;
use crate::faults::canary::{Says, Testimony};
use crate::faults::promotion::Promotion;
use crate::single_chip;
use chiptide_api::job::KindBody;
use chiptide_model::{
    Cause, ChipFacts, ChipId, DeviceClass, Event, Health, Hold, JobId, LeaseId, Millis, Next, NodeFacts, NodeId,
    Outcome, Placement, Policy, SessionId, Slots,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

/// Every moment of these histories is this long after the one before.
const STEP_MS: i64 = 100;

fn job(n: u128) -> JobId {
    JobId(Uuid::from_u128(n))
}
fn lease(n: u128) -> LeaseId {
    LeaseId(Uuid::from_u128(n))
}
fn chip(name: &str) -> ChipId {
    ChipId::new(name).expect("a name")
}
fn node() -> NodeId {
    NodeId::new("n1").expect("a name")
}

/// A history being written, one step after another.
struct Story {
    history: History,
    at_ms: i64,
}

/// A node with chips a and b; a bound of a second, and a limit of one chip for `default`'s neighbour.
fn story() -> Story {
    let history = History {
        vacate_bound_ms: 1000,
        epochs: [("a".to_owned(), 9), ("b".to_owned(), 9)].into(),
        limits: [("limited".to_owned(), 1)].into(),
        ..History::default()
    };
    let facts = NodeFacts {
        cpu_milli: 0,
        memory_mib: 0,
        rack: None,
        link_domain: None,
        agent_version: "0".into(),
        driver_version: None,
        labels: BTreeMap::new(),
    };
    let chip = |name: &str| {
        let facts = ChipFacts {
            id: chip(name),
            class: DeviceClass::new("nvidia-h20").expect("a class"),
            memory_mib: 1024,
            vendor: "nvidia".into(),
            product: "H20".into(),
            serial: None,
            pci_bus_id: None,
            numa_node: None,
            link_peers: Vec::new(),
        };
        (facts, Health::Healthy)
    };
    let (session, chips) = (SessionId(Uuid::nil()), vec![chip("a"), chip("b")]);
    let registered = Event::NodeRegistered { node: node(), session, boot_id: "b".into(), facts, chips };
    Story { history, at_ms: 1_000_000 }.then(Event::LeaderTookOver { epoch: 1 }).then(registered)
}

impl Story {
    fn then(mut self, event: Event) -> Story {
        self.at_ms += STEP_MS;
        let seq = self.history.log.len() as i64 + 1;
        self.history.log.push(Entry { seq, at_ms: self.at_ms, leader_epoch: 1, event });
        self
    }
    fn passes_time(mut self, ms: i64) -> Story {
        self.at_ms += ms;
        self
    }
    fn submit_to(self, n: u128, queue: &str) -> Story {
        let body = single_chip::job(format!("j{n}"), KindBody::Training, "standard", Millis(0));
        let mut spec = body.into_spec(&Policy::default()).expect("a valid job");
        spec.queue = queue.into();
        (spec.cpu_milli, spec.memory_mib) = (0, 0);
        let place =
            1 + self.history.log.iter().filter(|e| matches!(e.event, Event::JobSubmitted { .. })).count() as u64;
        let mut story = self.then(Event::JobSubmitted { job: job(n), place, spec: Arc::new(spec) });
        story.history.acknowledged.push((job(n), Some("succeeded".into())));
        story
    }
    fn submit(self, n: u128) -> Story {
        self.submit_to(n, "default")
    }
    fn grant(self, n: u128, name: &str, epoch: u64) -> Story {
        let holds = vec![Hold { chip: chip(name), slots: vec![Slots::new(0, 1000).expect("a range")], epoch }];
        let placement = Placement { replica: 0, node: node(), holds, cpu_milli: 0, memory_mib: 0 };
        self.then(Event::LeaseGranted {
            lease: lease(n),
            job: job(n),
            attempt: 1,
            placements: vec![placement],
            expires_at: None,
            ends_at: None,
            extra: false,
        })
    }
    fn done(self, n: u128) -> Story {
        self.then(Event::LeaseEnded { lease: lease(n), cause: Cause::Done, next: Next::Ended(Outcome::Succeeded) })
    }
    fn vacate(self, n: u128, name: &str, epoch: u64) -> Story {
        self.then(Event::ChipVacated { chip: chip(name), lease: lease(n), epoch })
    }
    /// A canary of lease `n` says this of a chip, two steps apart: from a moment after the last event.
    fn ran(self, n: u128, name: &str) -> Story {
        self.said(n, name, &[Says::Took, Says::Has, Says::Left])
    }
    fn said(mut self, n: u128, name: &str, words: &[Says]) -> Story {
        let mut lines = Vec::new();
        for says in words {
            self.at_ms += STEP_MS;
            lines.push(Testimony {
                at_ns: self.at_ms.unsigned_abs() * 1_000_000,
                wall_ms: self.at_ms.unsigned_abs(),
                says: *says,
                pid: n as u32,
                node: "n1".into(),
                lease: lease(n).to_string(),
                epoch: 1,
                rank: 0,
                chips: vec![name.to_owned()],
            });
        }
        self.history.testimonies.push(lines);
        self
    }
    fn back(mut self, ms: i64) -> Story {
        self.at_ms -= ms;
        self
    }
    /// A whole life of job and lease `n` on chip a.
    fn life(self, n: u128, epoch: u64) -> Story {
        self.submit(n).grant(n, "a", epoch).ran(n, "a").done(n).vacate(n, "a", epoch)
    }

    #[track_caller]
    fn passes(self) {
        let verdict = self.history.judge();
        assert!(verdict.clean, "{:#?}", verdict.first);
    }
    #[track_caller]
    fn violates(self, expected: Invariant) {
        let verdict = self.history.judge();
        let found: Vec<Invariant> = verdict.violations.into_keys().collect();
        assert_eq!(found, [expected], "{:#?}", verdict.first);
    }
}

#[test]
fn a_history_of_two_lives_is_clean_and_counted() {
    let mut story = story().life(1, 1).life(2, 2);
    story.history.proofs = vec![Proof { chip: "a".into(), lease: lease(1).to_string() }];
    let verdict = story.history.judge();
    assert!(verdict.clean, "{:#?}", verdict.first);
    assert_eq!((verdict.runs, verdict.handovers, verdict.ended, verdict.proofs), (2, 1, 2, 1));
    assert_eq!(verdict.longest_vacate_ms, STEP_MS);
}

#[test]
fn i1_two_processes_on_a_chip_at_once() {
    // The second begins before the first has left: of all there is, only the canaries know.
    let overlapping = story().submit(1).grant(1, "a", 1).ran(1, "a").back(STEP_MS + 50);
    overlapping.said(1, "a", &[Says::Took, Says::Left]).done(1).vacate(1, "a", 1).violates(Invariant::I1);
    let refused = story().submit(1).grant(1, "a", 1).said(1, "a", &[Says::Refused]).done(1).vacate(1, "a", 1);
    refused.violates(Invariant::I1);
    let held_twice = story().submit(1).grant(1, "a", 1).submit(2).grant(2, "a", 2);
    held_twice.done(1).done(2).vacate(1, "a", 1).vacate(2, "a", 2).violates(Invariant::I1);
}

#[test]
fn i2_a_process_outside_its_grant() {
    let outlived = story().submit(1).grant(1, "a", 1).done(1).vacate(1, "a", 1).ran(1, "a");
    outlived.violates(Invariant::I2);
    let early = story().submit(1).ran(1, "a").grant(1, "a", 1).done(1).vacate(1, "a", 1);
    early.violates(Invariant::I2);
    let elsewhere = story().submit(1).grant(1, "a", 1).ran(1, "b").done(1).vacate(1, "a", 1);
    elsewhere.violates(Invariant::I2);
    story().life(1, 1).ran(7, "a").violates(Invariant::I2);
    story().submit(1).grant(1, "a", 2).done(1).vacate(1, "a", 1).violates(Invariant::I2);
}

#[test]
fn i3_epochs_that_do_not_grow_or_were_not_kept() {
    story().life(1, 2).life(2, 2).violates(Invariant::I3);
    let mut forgetful = story().life(1, 2);
    forgetful.history.epochs.insert("a".into(), 1);
    forgetful.violates(Invariant::I3);
}

#[test]
fn i4_a_gang_that_is_not_whole() {
    let mut story = story().life(1, 1);
    let Event::JobSubmitted { spec, .. } = &mut story.history.log[2].event else { panic!("a submit") };
    Arc::make_mut(spec).replicas = 2;
    story.violates(Invariant::I4);
}

#[test]
fn i5_a_job_that_is_stuck_or_there_twice() {
    let mut stuck = story().submit(1);
    stuck.history.acknowledged[0].1 = Some("pending".into());
    stuck.violates(Invariant::I5);
    let mut twice = story().life(1, 1);
    twice.history.doubled.insert("j1".into());
    twice.violates(Invariant::I5);
}

#[test]
fn i6_an_eviction_for_nobody() {
    let revoked = Event::LeaseRevoked {
        lease: lease(1),
        cause: Cause::Preempt { for_job: job(2) },
        deadline: chiptide_model::Timestamp(0),
    };
    let mut story = story().submit(1).grant(1, "a", 1).submit(2).then(revoked).done(1).vacate(1, "a", 1);
    let Event::JobSubmitted { spec, .. } = &mut story.history.log[4].event else { panic!("a submit") };
    Arc::make_mut(spec).priority = 10_000;
    let ended = Event::JobEnded { job: job(2), outcome: Outcome::Succeeded };
    story.then(ended).violates(Invariant::I6);
}

#[test]
fn i7_a_chip_that_nobody_proves_vacant_while_its_node_answers() {
    let late = || story().submit(1).grant(1, "a", 1).done(1).passes_time(20_000);
    late().vacate(1, "a", 1).violates(Invariant::I7);
    late().then(Event::NodeHeard { node: node() }).violates(Invariant::I7);
    let mut hit = late().vacate(1, "a", 1);
    hit.history.hits = vec![(1_000_000, 1_008_000), (1_007_000, 1_015_000)];
    hit.passes();
    let silent = story().submit(1).grant(1, "a", 1).done(1).then(Event::NodeSilent { node: node() });
    let heard = silent.passes_time(20_000).then(Event::NodeHeard { node: node() });
    heard.vacate(1, "a", 1).passes();
}

#[test]
fn i8_memory_that_differs_from_the_log() {
    let mut story = story().life(1, 1);
    story.history.acknowledged[0].1 = Some("failed".into());
    story.violates(Invariant::I8);
}

#[test]
fn i9_a_queue_beyond_its_limit() {
    let one = story().submit_to(1, "limited").grant(1, "a", 1);
    let two = one.submit_to(2, "limited").grant(2, "b", 1);
    two.done(1).vacate(1, "a", 1).done(2).vacate(2, "b", 1).violates(Invariant::I9);
}

#[test]
fn i10_an_acknowledgement_that_is_gone() {
    let mut lost = story().life(1, 1);
    lost.history.acknowledged[0].1 = None;
    lost.violates(Invariant::I10);
    let mut not_in_log = story().life(1, 1);
    not_in_log.history.acknowledged.push((job(9), Some("succeeded".into())));
    not_in_log.violates(Invariant::I10);
    let mut unproven = story().submit(1).grant(1, "a", 1).done(1);
    unproven.history.proofs = vec![Proof { chip: "a".into(), lease: lease(1).to_string() }];
    unproven.violates(Invariant::I10);
}

fn promotion(synchronous: bool, last_seq: i64, forgotten: Vec<Entry>) -> Promotion {
    Promotion { synchronous, last_seq, forgotten }
}

/// A life of job and lease 1 that a promoted replica has forgotten, and what the log says then.
fn forgotten(synchronous: bool) -> Story {
    let mut story = story();
    let last_seq = story.history.log.len() as i64;
    story = story.life(1, 1);
    let tail = story.history.log.split_off(last_seq as usize);
    story.history.promotions = vec![promotion(synchronous, last_seq, tail)];
    story
}

fn replaced(story: Story) -> Story {
    let registered = story.history.log[1].event.clone();
    story.then(Event::DatabaseReplaced { detail: "timeline 2 after 1".into() }).then(registered)
}

#[test]
fn what_a_lagging_replica_forgot_is_counted_and_no_violation() {
    let verdict = replaced(forgotten(false)).life(2, 2).history.judge();
    assert!(verdict.clean, "{:#?}", verdict.first);
    assert_eq!((verdict.promotions, verdict.forgotten_events, verdict.forgotten_jobs), (1, 4, 1));
}

#[test]
fn i10_an_acknowledged_job_that_a_synchronous_replica_lacks() {
    let mut story = story().submit(1);
    let submit = story.history.log.pop().expect("the submit");
    story.history.promotions = vec![promotion(true, 2, vec![submit])];
    replaced(story).life(2, 2).violates(Invariant::I10);
}

#[test]
fn i3_after_a_promotion_an_epoch_again_or_a_grant_too_early() {
    replaced(forgotten(false)).life(2, 1).violates(Invariant::I3);
    forgotten(false).life(2, 2).violates(Invariant::I3);
}
