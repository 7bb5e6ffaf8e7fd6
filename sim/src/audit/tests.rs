//! Small logs, each violating one rule. A rule that no log here violates would be a rule that cannot fail.

use super::{Auditor, Entry, Rule};
use chiptide_model::{
    Cause, ChipDemand, ChipFacts, ChipId, ClaimDrop, DeviceClass, Event, Health, Hold, JobId, JobSpec, Kind, LeaseId,
    Millis, Next, NodeFacts, NodeId, Outcome, Placement, Quarantine, Same, SameLevel, SessionId, Slots, Timestamp,
    Unfit,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use uuid::Uuid;

fn node(name: &str) -> NodeId {
    NodeId::new(name).expect("a name")
}
fn chip(name: &str) -> ChipId {
    ChipId::new(name).expect("a name")
}
fn job(n: u128) -> JobId {
    JobId(Uuid::from_u128(n))
}
fn lease(n: u128) -> LeaseId {
    LeaseId(Uuid::from_u128(n))
}

fn spec(replicas: u32, demand: ChipDemand) -> JobSpec {
    JobSpec {
        kind: Kind::Training,
        name: "t".into(),
        queue: "default".into(),
        priority_class: None,
        priority: 100,
        replicas,
        replicas_min: None,
        demand,
        cpu_milli: 1000,
        memory_mib: 0,
        device_classes: Vec::new(),
        same: None,
        max_duration: None,
        preemptible: true,
        grace: Millis(0),
        checkpoint_every: None,
        restart_cost: None,
        min_runtime: None,
        preemption_budget: None,
        lease_ttl: None,
        on_node_loss: Default::default(),
        unfit: Unfit::Wait,
        labels: BTreeMap::new(),
        workload: None,
    }
}
fn one_chip() -> JobSpec {
    spec(1, ChipDemand::Chips(1))
}
fn urgent() -> JobSpec {
    JobSpec { priority: 1000, preemptible: false, ..one_chip() }
}

fn hold(name: &str, slots: (u16, u16), epoch: u64) -> Hold {
    Hold { chip: chip(name), slots: vec![Slots::new(slots.0, slots.1).expect("a range")], epoch }
}
fn whole(name: &str, epoch: u64) -> Hold {
    hold(name, (0, 1000), epoch)
}
fn on(replica: u32, node_name: &str, holds: Vec<Hold>) -> Placement {
    Placement { replica, node: node(node_name), holds, cpu_milli: 1000, memory_mib: 0 }
}

/// A log being written. It opens with a leader and two nodes: `n1` with chips a and b, `n2` with chip c of another class.
struct Log(Vec<Event>);

fn log() -> Log {
    let facts = || NodeFacts {
        cpu_milli: 3000,
        memory_mib: 0,
        rack: None,
        link_domain: None,
        agent_version: "0".into(),
        driver_version: None,
        labels: BTreeMap::new(),
    };
    let chips = |names: &[&str], class: &str| {
        names
            .iter()
            .map(|name| {
                let chip = ChipFacts {
                    id: chip(name),
                    class: DeviceClass::new(class).expect("a class"),
                    memory_mib: 16_384,
                    vendor: "nvidia".into(),
                    product: "T4".into(),
                    serial: None,
                    pci_bus_id: None,
                    numa_node: None,
                    link_peers: Vec::new(),
                };
                (chip, Health::Healthy)
            })
            .collect()
    };
    let node = |name: &str, chips| Event::NodeRegistered {
        node: node(name),
        session: SessionId(Uuid::nil()),
        boot_id: "b".into(),
        facts: facts(),
        chips,
    };
    Log(vec![
        Event::LeaderTookOver { epoch: 1 },
        node("n1", chips(&["a", "b"], "nvidia-t4")),
        node("n2", chips(&["c"], "nvidia-g2")),
    ])
}

/// Events as the log would number them, each written by the leader of its moment.
fn numbered(events: Vec<Event>) -> Vec<Entry> {
    let mut leader_epoch = 0;
    let number = |(index, event)| {
        if let Event::LeaderTookOver { epoch } = &event {
            leader_epoch = *epoch;
        }
        Entry { seq: index as i64 + 1, at_ms: 0, leader_epoch, event }
    };
    events.into_iter().enumerate().map(number).collect()
}

impl Log {
    fn then(mut self, event: Event) -> Log {
        self.0.push(event);
        self
    }
    fn submit(self, n: u128, spec: JobSpec) -> Log {
        let place = 1 + self.0.iter().filter(|event| matches!(event, Event::JobSubmitted { .. })).count() as u64;
        self.then(Event::JobSubmitted { job: job(n), place, spec: Arc::new(spec) })
    }
    /// Grants lease `n` to job `n`, its first attempt.
    fn grant(self, n: u128, placements: Vec<Placement>) -> Log {
        self.grant_attempt(n, n, 1, placements)
    }
    fn grant_attempt(self, lease_n: u128, job_n: u128, attempt: u32, placements: Vec<Placement>) -> Log {
        let (lease, job) = (lease(lease_n), job(job_n));
        self.then(Event::LeaseGranted {
            lease,
            job,
            attempt,
            placements,
            expires_at: None,
            ends_at: None,
            extra: false,
        })
    }
    fn done(self, n: u128) -> Log {
        self.then(Event::LeaseEnded { lease: lease(n), cause: Cause::Done, next: Next::Ended(Outcome::Succeeded) })
    }
    fn vacate(self, name: &str, n: u128, epoch: u64) -> Log {
        self.then(Event::ChipVacated { chip: chip(name), lease: lease(n), epoch })
    }
    fn claim(self, n: u128, placements: Vec<Placement>, victims: &[u128]) -> Log {
        let victims = victims.iter().map(|n| lease(*n)).collect();
        self.then(Event::ClaimMade {
            job: job(n),
            placements,
            victims,
            deadline: Timestamp(0),
            choice: Default::default(),
        })
    }
    fn preempt(self, n: u128, for_n: u128) -> Log {
        let cause = Cause::Preempt { for_job: job(for_n) };
        self.then(Event::LeaseRevoked { lease: lease(n), cause, deadline: Timestamp(0) })
    }
    fn back_to_pending(self, n: u128) -> Log {
        self.then(Event::LeaseEnded { lease: lease(n), cause: Cause::Released, next: Next::Pending })
    }

    fn audit(self, acknowledged: &[JobId]) -> super::AuditReport {
        let log: Vec<Entry> = numbered(self.0);
        Auditor::audit(&log, acknowledged)
    }
    #[track_caller]
    fn passes(self) {
        let report = self.audit(&[]);
        assert!(report.clean, "{:#?}", report.first_violations);
    }
    #[track_caller]
    fn violates(self, rule: Rule) {
        let report = self.audit(&[]);
        let found: Vec<Rule> = report.first_violations.iter().map(|violation| violation.rule).collect();
        assert!(!report.clean);
        assert_eq!(found, [rule], "{:#?}", report.first_violations);
    }
}

#[test]
fn a_life_with_a_preemption_is_clean_and_counted() {
    let report = log()
        .submit(1, one_chip())
        .grant(1, vec![on(0, "n1", vec![whole("a", 1)])])
        .submit(2, urgent())
        .claim(2, vec![on(0, "n1", vec![whole("a", 0)])], &[1])
        .preempt(1, 2)
        .back_to_pending(1)
        .vacate("a", 1, 1)
        .grant(2, vec![on(0, "n1", vec![whole("a", 2)])])
        .done(2)
        .vacate("a", 2, 2)
        .grant_attempt(3, 1, 2, vec![on(0, "n1", vec![whole("a", 3)])])
        .audit(&[job(1), job(2)]);
    assert!(report.clean, "{:#?}", report.first_violations);
    assert_eq!((report.grants, report.vacated, report.preemptions, report.claims), (3, 2, 1, 1));
    assert_eq!(report.jobs_placed, 2);
    assert_eq!((report.jobs_pending, report.jobs_leased, report.jobs_ended), (0, 1, 1));
}

#[test]
fn a_chip_is_not_granted_again_before_its_proof_of_vacancy() {
    let ended = || log().submit(1, one_chip()).grant(1, vec![on(0, "n1", vec![whole("a", 1)])]).done(1);
    ended().submit(2, one_chip()).grant(2, vec![on(0, "n1", vec![whole("a", 2)])]).violates(Rule::SlotHeldTwice);
    ended().vacate("a", 1, 1).submit(2, one_chip()).grant(2, vec![on(0, "n1", vec![whole("a", 2)])]).passes();
}

#[test]
fn shares_of_one_chip_may_not_overlap() {
    let two = |second| {
        let half = || spec(1, ChipDemand::ShareSlots(500));
        log()
            .submit(1, half())
            .submit(2, half())
            .grant(1, vec![on(0, "n1", vec![hold("a", (0, 500), 1)])])
            .grant(2, vec![on(0, "n1", vec![hold("a", second, 2)])])
    };
    two((500, 1000)).passes();
    two((499, 999)).violates(Rule::SlotHeldTwice);
}

#[test]
fn replicas_of_one_gang_may_share_a_chip_but_not_a_slot() {
    let gang = |second| {
        let holds = [hold("a", (0, 500), 1), hold("a", second, 1)];
        let placements = holds.into_iter().enumerate().map(|(i, hold)| on(i as u32, "n1", vec![hold])).collect();
        log().submit(1, spec(2, ChipDemand::ShareSlots(500))).grant(1, placements)
    };
    gang((500, 1000)).passes();
    gang((400, 900)).violates(Rule::SlotHeldTwice);
}

#[test]
fn epochs_of_a_chip_and_of_the_leader_grow() {
    let again = |epoch| {
        log()
            .submit(1, one_chip())
            .grant(1, vec![on(0, "n1", vec![whole("a", 5)])])
            .done(1)
            .vacate("a", 1, 5)
            .submit(2, one_chip())
            .grant(2, vec![on(0, "n1", vec![whole("a", epoch)])])
    };
    again(6).passes();
    again(5).violates(Rule::EpochNotGrown);
    log().then(Event::LeaderTookOver { epoch: 1 }).violates(Rule::EpochNotGrown);
}

#[test]
fn a_gang_is_granted_whole() {
    let gang = |placements| log().submit(1, spec(2, ChipDemand::Chips(1))).grant(1, placements);
    let first = || on(0, "n1", vec![whole("a", 1)]);
    gang(vec![first(), on(1, "n1", vec![whole("b", 1)])]).passes();
    gang(vec![first()]).violates(Rule::GangIncomplete);
    gang(vec![first(), on(0, "n1", vec![whole("b", 1)])]).violates(Rule::GangIncomplete);
    gang(vec![first(), on(1, "n1", vec![hold("b", (0, 999), 1)])]).violates(Rule::GangIncomplete);
    gang(vec![first(), on(1, "n1", vec![])]).violates(Rule::GangIncomplete);
}

#[test]
fn replicas_that_must_be_near_are_near() {
    let near = |level| {
        let spec = JobSpec {
            kind: Kind::Inference,
            same: Some(Same { level, required: true }),
            ..spec(2, ChipDemand::Chips(1))
        };
        let placements = vec![on(0, "n1", vec![whole("a", 1)]), on(1, "n2", vec![whole("c", 1)])];
        log().submit(1, spec).grant(1, placements)
    };
    near(SameLevel::Node).violates(Rule::GangIncomplete);
    near(SameLevel::Rack).violates(Rule::GangIncomplete);
}

#[test]
fn nothing_is_granted_where_it_may_not_be() {
    let after = |event| log().then(event).submit(1, one_chip()).grant(1, vec![on(0, "n1", vec![whole("a", 1)])]);
    let sick = Health::Unreadable { detail: "no answer".into() };
    after(Event::NodeSilent { node: node("n1") }).violates(Rule::GrantedUnavailable);
    after(Event::LeaderTookOver { epoch: 2 }).violates(Rule::GrantedUnavailable);
    after(Event::ChipHealthChanged { chip: chip("a"), health: sick }).violates(Rule::GrantedUnavailable);
    after(Event::ChipQuarantined { chip: chip("a"), quarantine: Quarantine::NotVacated { lease: lease(9) } })
        .violates(Rule::GrantedUnavailable);
    after(Event::NodeSilent { node: node("n2") }).passes();
    after(Event::ChipRestored { chip: chip("a") }).passes();
}

#[test]
fn a_chip_is_granted_where_it_is_and_of_a_class_the_job_accepts() {
    let grant = |spec, placement| log().submit(1, spec).grant(1, vec![placement]);
    let picky = JobSpec { device_classes: vec![DeviceClass::new("nvidia-g2").expect("a class").into()], ..one_chip() };
    grant(one_chip(), on(0, "n2", vec![whole("a", 1)])).violates(Rule::WrongChip);
    grant(picky.clone(), on(0, "n1", vec![whole("a", 1)])).violates(Rule::WrongChip);
    grant(picky, on(0, "n2", vec![whole("c", 1)])).passes();
    let mixed = vec![on(0, "n1", vec![whole("a", 1)]), on(1, "n2", vec![whole("c", 1)])];
    log().submit(1, spec(2, ChipDemand::Chips(1))).grant(1, mixed).violates(Rule::WrongChip);
}

#[test]
fn a_node_is_not_overcommitted() {
    let big = JobSpec { cpu_milli: 2500, ..one_chip() };
    let placement = |chip| Placement { cpu_milli: 2500, ..on(0, "n1", vec![whole(chip, 1)]) };
    let first = || log().submit(1, big.clone()).submit(2, big.clone()).grant(1, vec![placement("a")]);
    first().grant(2, vec![placement("b")]).violates(Rule::NodeOvercommitted);
    first().done(1).grant(2, vec![placement("b")]).passes();
}

#[test]
fn promised_slots_go_to_nobody_else() {
    let promised =
        || log().submit(1, urgent()).submit(2, one_chip()).claim(1, vec![on(0, "n1", vec![whole("a", 0)])], &[]);
    promised().grant(2, vec![on(0, "n1", vec![whole("a", 1)])]).violates(Rule::PromiseBroken);
    promised().grant(1, vec![on(0, "n1", vec![whole("b", 1)])]).violates(Rule::PromiseBroken);
    promised().claim(2, vec![on(0, "n1", vec![whole("a", 0)])], &[]).violates(Rule::PromiseBroken);
    promised()
        .then(Event::ClaimDropped { job: job(1), why: ClaimDrop::Overdue })
        .grant(2, vec![on(0, "n1", vec![whole("a", 1)])])
        .passes();
}

#[test]
fn proofs_are_about_ended_leases_and_have_seen_their_epoch() {
    let granted = || log().submit(1, one_chip()).grant(1, vec![on(0, "n1", vec![whole("a", 4)])]);
    granted().vacate("a", 1, 4).violates(Rule::BadProof);
    granted().done(1).vacate("a", 1, 3).violates(Rule::BadProof);
    granted().done(1).vacate("a", 1, 4).vacate("a", 1, 4).passes();
}

#[test]
fn a_job_moves_only_between_neighbours() {
    let a = || vec![on(0, "n1", vec![whole("a", 1)])];
    let ended = |n| Event::JobEnded { job: job(n), outcome: Outcome::Cancelled };
    let submitted = || log().submit(1, one_chip());
    submitted().submit(1, one_chip()).violates(Rule::JobOutOfStep);
    submitted().then(Event::JobStarted { job: job(1) }).violates(Rule::JobOutOfStep);
    submitted().grant(1, a()).then(ended(1)).violates(Rule::JobOutOfStep);
    submitted().grant(1, a()).done(1).done(1).violates(Rule::JobOutOfStep);
    submitted().grant_attempt(1, 1, 2, a()).violates(Rule::JobOutOfStep);
    submitted().then(ended(1)).grant(1, a()).violates(Rule::JobOutOfStep);
    log().grant(1, a()).violates(Rule::JobOutOfStep);
    submitted()
        .grant(1, a())
        .then(Event::LeaseConfirmed { lease: lease(1), node: node("n2") })
        .violates(Rule::JobOutOfStep);
    submitted().then(ended(1)).passes();
}

#[test]
fn an_acknowledged_job_is_in_the_log() {
    let report = log().submit(1, one_chip()).audit(&[job(1), job(9)]);
    assert_eq!(report.first_violations[0].rule, Rule::JobLost);
    assert_eq!((report.violations, report.jobs_acknowledged), (1, 2));
}

#[test]
fn whoever_is_preempted_is_preempted_for_somebody() {
    let a = || vec![on(0, "n1", vec![whole("a", 0)])];
    let noticed = || {
        log().submit(1, one_chip()).submit(2, urgent()).grant(1, vec![on(0, "n1", vec![whole("a", 1)])]).preempt(1, 2)
    };
    noticed().violates(Rule::PreemptedForNobody);
    noticed().claim(2, a(), &[]).violates(Rule::PreemptedForNobody);
    noticed().claim(2, a(), &[1]).passes();
    noticed().claim(2, a(), &[]).then(Event::ClaimDropped { job: job(2), why: ClaimDrop::ChipLost }).passes();
}

#[test]
fn only_the_preemptible_are_preempted_and_only_for_a_higher_priority() {
    let preempted = |victim: JobSpec, preemptor: JobSpec| {
        log()
            .submit(1, victim)
            .submit(2, preemptor)
            .grant(1, vec![on(0, "n1", vec![whole("a", 1)])])
            .claim(2, vec![on(0, "n1", vec![whole("a", 0)])], &[1])
            .preempt(1, 2)
    };
    preempted(one_chip(), urgent()).passes();
    preempted(one_chip(), one_chip()).violates(Rule::UnfairPreemption);
    preempted(JobSpec { preemptible: false, ..one_chip() }, urgent()).violates(Rule::UnfairPreemption);
}

#[test]
fn events_are_numbered_without_a_gap() {
    let numbered = |seqs: [i64; 2]| {
        let mut log = numbered(vec![Event::LeaderTookOver { epoch: 1 }, Event::NodeSilent { node: node("n1") }]);
        log.iter_mut().zip(seqs).for_each(|(entry, seq)| entry.seq = seq);
        Auditor::audit(&log, &[]).first_violations.iter().map(|violation| violation.rule).collect::<Vec<_>>()
    };
    assert_eq!(numbered([1, 2]), []);
    assert_eq!(numbered([1, 1]), [Rule::LogOrder]);
    assert_eq!(numbered([1, 3]), [Rule::LogOrder]);
}

#[test]
fn a_deposed_leader_writes_nothing() {
    let takeovers = [1, 2].map(|epoch| Event::LeaderTookOver { epoch });
    let mut log = numbered(takeovers.into_iter().chain([Event::NodeSilent { node: node("n1") }]).collect());
    assert!(Auditor::audit(&log, &[]).clean);
    log[2].leader_epoch = 1;
    assert_eq!(Auditor::audit(&log, &[]).first_violations[0].rule, Rule::DeposedWrote);
}
