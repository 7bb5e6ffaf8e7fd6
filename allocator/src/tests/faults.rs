//! Faults of chips: what they do to the chip and to who has it, and what ends them.

use super::world::{World, job, node_id, world};
use crate::{Ack, Command, Refusal};
use chiptide_model::{ChipId, Dimension, Fault, FaultClass, FaultEnd, FaultKey, JobState, Quarantine, Timestamp};
use expect_test::expect;

fn chip_id(name: &str) -> ChipId {
    ChipId::new(name).expect("a chip name")
}

fn xid(code: u32, class: FaultClass, since: i64) -> Fault {
    let key = FaultKey { dimension: Dimension::Xid, code, since: Timestamp(since) };
    Fault { key, class, detail: "seen".into(), ended: None }
}

fn over(fault: &Fault) -> Fault {
    Fault { ended: Some(FaultEnd::Evidence { detail: "looked again, clean".into() }), ..fault.clone() }
}

impl World {
    /// The node of a chip tells of a fault of it, and proves what it can.
    fn tells(&mut self, chip: &str, fault: &Fault) {
        let (node, _) = chip.split_once('-').expect("a chip of a node");
        let mut report = self.full_report(&node_id(node));
        report.faults = vec![(chip_id(chip), fault.clone())];
        self.round(vec![Command::Report(report)]);
    }

    fn release(&mut self, chip: &str) -> Result<Ack, Refusal> {
        let command = Command::ReleaseChip { chip: chip_id(chip), who: "ann".into(), reason: "reseated".into() };
        self.round(vec![command]).remove(0)
    }

    fn quarantine_of(&self, chip: &str) -> Option<Quarantine> {
        self.draft.chip(&chip_id(chip)).expect("a chip").quarantine.clone()
    }
}

#[test]
fn a_fault_of_the_work_ends_the_lease_and_the_chip_comes_back_by_proof() {
    let mut world = world().node("n1", 1).node("n2", 1).lease(job("a"));
    world.tells("n1-0", &xid(31, FaultClass::Job, 5));
    world.tells("n1-0", &xid(31, FaultClass::Job, 5));
    world.expect(expect![[r#"
        n1 confirms a
        a runs
        lease of a ends (fault): back to pending
        n1-0 has XID 31: seen
        a gets n2-0
        n1-0 is proven vacant of a"#]]);
    assert_eq!(world.quarantine_of("n1-0"), None);
}

#[test]
fn a_job_that_loses_attempt_after_attempt_to_its_own_faults_fails_with_the_reason() {
    let mut world = world().node("n1", 1).lease(job("a"));
    for since in 1..=3 {
        world.tells("n1-0", &xid(31, FaultClass::Job, since));
        world.nodes_report();
    }
    world.expect(expect![[r#"
        n1 confirms a
        a runs
        lease of a ends (fault): back to pending
        n1-0 has XID 31: seen
        n1-0 is proven vacant of a
        a gets n1-0
        n1 confirms a
        a runs
        lease of a ends (fault): back to pending
        n1-0 has XID 31: seen
        n1-0 is proven vacant of a
        a gets n1-0
        n1 confirms a
        a runs
        lease of a ends (fault): Failed { reason: "chip fault on n1-0: XID 31: seen (attempt 3)" }
        n1-0 has XID 31: seen
        n1-0 is proven vacant of a"#]]);
}

#[test]
fn a_chip_to_be_reset_stays_out_until_its_node_has_looked_again() {
    let mut world = world().node("n1", 1).lease(job("a"));
    let fault = xid(48, FaultClass::Reset, 5);
    world.tells("n1-0", &fault);
    world.nodes_report();
    assert!(matches!(world.draft.job(world.job_id("a")).expect("a job").state, JobState::Pending));
    world.tells("n1-0", &over(&fault));
    world.expect(expect![[r#"
        n1 confirms a
        a runs
        lease of a ends (fault): back to pending
        n1-0 has XID 48: seen
        n1-0 is quarantined
        n1-0 is proven vacant of a
        xid 48 of n1-0 is over
        n1-0 is restored
        a gets n1-0"#]]);
}

#[test]
fn the_second_reset_within_days_is_for_people_and_only_they_end_it() {
    let mut world = world().node("n1", 1);
    let (first, second) = (xid(48, FaultClass::Reset, 5), xid(95, FaultClass::Reset, 9_000));
    world.tells("n1-0", &first);
    world.tells("n1-0", &over(&first));
    world.tells("n1-0", &second);
    world.tells("n1-0", &over(&second));
    assert!(matches!(world.quarantine_of("n1-0"), Some(Quarantine::Fault { class: FaultClass::Human, .. })));
    assert_eq!(world.release("n1-0"), Ok(Ack::Chip(chip_id("n1-0"))));
    assert_eq!(world.quarantine_of("n1-0"), None);
    assert_eq!(world.release("n1-0"), Err(Refusal::NotQuarantined(chip_id("n1-0"))));
}

#[test]
fn a_fault_that_is_not_urgent_lets_the_holder_finish_and_grants_nothing_new() {
    let mut world = world().node("n1", 1).lease(job("a"));
    world.tells("n1-0", &xid(63, FaultClass::ResetAtIdle, 5));
    world.done("a");
    world.submit(job("b")).expect("accepted");
    world.nodes_report();
    world.expect(expect![[r#"
        n1 confirms a
        a runs
        n1-0 has XID 63: seen
        n1-0 is quarantined
        lease of a ends (done): Succeeded
        b submitted
        n1-0 is proven vacant of a"#]]);
}

#[test]
fn a_fault_of_the_node_keeps_its_other_chips_back_and_ends_no_other_lease() {
    let mut world = world().node("n1", 3).lease(job("a")).lease(job("b"));
    let fault = xid(79, FaultClass::Node, 5);
    world.tells("n1-0", &fault);
    world.expect(expect![[r#"
        n1 confirms b
        b runs
        n1 confirms a
        a runs
        lease of a ends (fault): back to pending
        n1-0 has XID 79: seen
        n1-0 is quarantined
        n1-1 is quarantined
        n1-2 is quarantined"#]]);
    let held_by = Refusal::HeldByNodeFault { chip: chip_id("n1-2"), other: chip_id("n1-0") };
    assert_eq!(world.release("n1-2"), Err(held_by));
    world.nodes_report();
    world.tells("n1-0", &over(&fault));
    assert_eq!(["n1-0", "n1-1", "n1-2"].map(|chip| world.quarantine_of(chip)), [None, None, None]);
}

#[test]
fn nobodys_word_stands_in_for_the_proof_of_vacancy() {
    let mut world = world().node("n1", 1).lease(job("a"));
    let lease = world.lease_of("a").expect("a lease");
    world.done("a");
    world.after("60s");
    assert_eq!(world.release("n1-0"), Err(Refusal::NotVacated { chip: chip_id("n1-0"), lease }));
}

#[test]
fn an_admins_quarantine_ends_by_an_admin_only() {
    let mut world = world().node("n1", 1);
    let (who, reason) = (String::from("ann"), String::from("noisy fan"));
    world.round(vec![Command::Quarantine { chip: chip_id("n1-0"), who, reason }]);
    let fault = xid(48, FaultClass::Reset, 5);
    world.tells("n1-0", &fault);
    world.tells("n1-0", &over(&fault));
    world.submit(job("a")).expect("accepted");
    assert_eq!(world.lease_of("a"), None);
    world.release("n1-0").expect("released");
    assert!(world.lease_of("a").is_some());
}
