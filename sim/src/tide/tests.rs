use super::trace::Step;
use super::*;
use chiptide_model::{Millis, Timestamp};
use expect_test::expect;

fn at(secs: i64) -> Timestamp {
    Timestamp(secs * 1000)
}

/// Two nodes. Training fills both; at 600 s a service wants a replica of four, which evicts the younger half.
fn two_nodes(reserve: Kept) -> TideReport {
    let steps = vec![
        Step { at: at(0), replicas: vec![0] },
        Step { at: at(600), replicas: vec![1] },
        Step { at: at(1200), replicas: vec![0] },
    ];
    let demand = Demand { replica_chips: vec![4], steps };
    let job = |secs, chips| TrainingJob { submitted_at: at(secs), work: Millis::from_secs(3000), chips };
    let jobs = [job(10, 8), job(20, 4), job(500, 4)];
    let args = TideArgs {
        hp: PathBuf::new(),
        lp: PathBuf::new(),
        inf_nodes: 1,
        train_nodes: 1,
        victim: Victim::Lost,
        reserve,
        recount_every: 1,
        json: None,
    };
    replay(&demand, &jobs, &args).expect("a replay")
}

#[test]
fn a_shortage_evicts_whoever_has_lost_least() {
    let report = two_nodes(Kept::None);
    let figures = serde_json::to_string_pretty(&report).expect("JSON");
    expect![[r#"
        {
          "gpus": 16,
          "victim": "lost",
          "reserve": "none",
          "immediate_pct": 0.0,
          "lease_wait_p99_s": 30.0,
          "evictions_per_run_pct": 25.0,
          "evictions": 1,
          "runs": 4,
          "claims": 1,
          "claims_by_shape": 0,
          "queue_mean_s": 190.0,
          "queue_mean_s_by_gpus": {
            "4": 285.0,
            "8": 0.0
          },
          "jct_mean_h": 0.9019,
          "jct_p50_h": 0.8333,
          "jct_p95_h": 1.0389,
          "allocated_pct": 92.5,
          "goodput_pct": 90.1389,
          "wasted_gpu_h": 0.1889,
          "lost_gpu_h": 0.1444,
          "training_jobs": 3,
          "rounds": 14,
          "double_grants": 0
        }"#]]
    .assert_eq(&figures);
}

#[test]
fn a_reserve_makes_training_wait_instead() {
    let report = two_nodes(Kept::Fixed(4));
    assert_eq!((report.evictions, report.immediate_pct), (0, 100.0));
    assert!(report.queue_mean_s > 0.0);
}
