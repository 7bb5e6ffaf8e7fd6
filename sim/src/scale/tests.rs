use super::*;

#[test]
fn a_small_fleet_is_filled_waited_for_and_preempted_on() {
    let args = ScaleArgs { nodes: 16, chips_per_node: 8, pending: 200, shapes: 20, gangs: 3, json: None };
    let report = measure(&args).expect("a run");
    // 20 chips to 8 jobs: 51 jobs take 128 chips but one, for which the next, of four, is too large.
    assert_eq!((report.one_a_round.placed, report.many_a_round.placed, report.backlog.running), (51, 51, 51));
    assert_eq!(report.backlog.pending, 200);
    assert_eq!(report.gangs.preempting_round.count, 3);
    assert!(report.gangs.victims > 0);
}
