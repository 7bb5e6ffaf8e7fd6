use super::*;

#[test]
fn a_small_fleet_is_filled_waited_for_and_preempted_on() {
    let args = ScaleArgs { nodes: 16, chips_per_node: 8, pending: 200, shapes: 20, gangs: 3, json: None };
    let report = measure(&args).expect("a run");
    // Eight jobs take 20 chips: 52 jobs take all 128.
    assert_eq!((report.one_a_round.placed, report.many_a_round.placed, report.backlog.running), (52, 52, 52));
    assert_eq!(report.backlog.pending, 200);
    assert_eq!(report.gangs.preempting_round.count, 3);
    assert!(report.gangs.victims > 0);
}
