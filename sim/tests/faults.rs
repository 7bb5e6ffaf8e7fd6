//! Short runs with real faults under a load of real processes, judged by the checker: kills of daemons, agents and Postgres, and one
//! of most other kinds.

use chiptide_sim::faults::fault::Fault;
use chiptide_sim::faults::run::{FaultsArgs, measure};
use std::process::Command;

/// Builds the scripted driver into the target directory this test runs from: nothing depends on it, so that a test of this
/// crate alone finds none. The programs beside it are built with the workspace.
fn build_driver() {
    // target/<profile>/deps/<this test>
    let test = std::env::current_exe().expect("this test");
    let target = test.ancestors().nth(3).expect("the target directory");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", "fake-nvml", "--target-dir"]).arg(target);
    assert!(build.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs").success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_doubled_or_stuck_when_anybody_is_killed() {
    build_driver();
    let args = FaultsArgs { faults: 9, nodes: 2, chips: 2, clients: 5, pause_ms: 1200, ..FaultsArgs::default() };
    let report = measure(&args).await.expect("the run itself");
    assert!(report.verdict.clean, "{:#?}", report.verdict);
    let told: u64 = Fault::KILLS.iter().filter_map(|kill| report.faults.get(kill)).sum();
    assert_eq!((told, report.kills), (9, 9));
    let verdict = &report.verdict;
    assert!(verdict.runs > 0 && verdict.handovers > 0 && verdict.proofs > 0 && verdict.ended > 0, "{verdict:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_full_disks_cut_routes_pauses_and_faulty_chips_hand_no_chip_to_two() {
    build_driver();
    let kinds = vec![
        Fault::PromoteSynchronous,
        Fault::CutRoutes,
        Fault::FullPostgres,
        Fault::PauseDaemon,
        Fault::PromoteLagging,
        Fault::FullAgent,
        Fault::Xid,
        Fault::Quarantine,
    ];
    let faults = kinds.len() as u64;
    let args = FaultsArgs {
        faults,
        kinds,
        in_turn: true,
        nodes: 2,
        chips: 3,
        clients: 5,
        pause_ms: 800,
        ..FaultsArgs::default()
    };
    let report = measure(&args).await.expect("the run itself");
    let verdict = &report.verdict;
    assert!(verdict.clean, "{verdict:#?}");
    assert_eq!((verdict.promotions, report.unasked_ends), (2, 0), "{:?}", report.unasked);
    assert!(verdict.runs > 0 && verdict.handovers > 0, "{verdict:#?}");
}
