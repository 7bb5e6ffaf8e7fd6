//! `chiptide-sim demo`, which `make demo` runs: a production fleet, a real trace, an inference spike that does not fit,
//! training giving way and coming back, and an audit of the event log in Postgres. Under two minutes on two cores.

mod report;
mod spike;
mod trace;
mod victims;

use crate::audit::{AuditReport, Auditor};
use crate::census::Census;
use crate::fleet::{Fleet, TEARDOWN_MAX};
use crate::json_file;
use crate::machine::Machine;
use crate::own_daemon::OwnDaemon;
use crate::progress::{Progress, done, step};
use crate::scheduler::Scheduler;
use crate::{event_log, openb};
use anyhow::Context;
use clap::Args;
pub use report::DemoReport;
use spike::Spike;
pub use spike::{EbbReport, SpikeReport};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};
pub use trace::ReplayReport;
use victims::Victims;

const STEPS: u32 = 6;
/// How long what the trace itself set in motion may take to come to rest.
const SETTLE_MAX: Duration = Duration::from_secs(6);

/// Shows Chiptide at work on a production trace, and audits what it did.
#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Where to write the report.
    #[arg(long, default_value = "demo-report.json")]
    json: PathBuf,
    /// Nodes of the openb trace.
    #[arg(long, default_value_t = 1213)]
    nodes: usize,
    /// GPU tasks of the openb trace; all 7,064 by default.
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
    tasks: usize,
    /// About how long the whole of it should take.
    #[arg(long, default_value_t = 75)]
    seconds: u64,
    /// Chips the spike asks for; by default a fifteenth of the fleet.
    #[arg(long)]
    spike_chips: Option<u64>,
}

/// Runs the demo. Fails unless the audit is clean.
pub async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let start = Instant::now();
    step(1, STEPS, "starting chiptided with a Postgres of its own");
    let mut daemon = OwnDaemon::start("demo").await?;
    done(&format!("ready after {:.1} s at {}", start.elapsed().as_secs_f64(), daemon.url()?));
    let played = play(&args, &daemon).await;
    let mut report = match played {
        Ok(report) => report,
        Err(error) => {
            eprintln!("chiptided's log ends:\n{}", daemon.log_tail());
            daemon.keep_dir();
            return Err(error);
        }
    };
    report.seconds = start.elapsed().as_secs_f64();
    println!("{}", report.table());
    json_file::write(&args.json, &report)?;
    done(&format!("report written to {}", args.json.display()));
    if report.audit.clean {
        return Ok(ExitCode::SUCCESS);
    }
    report.audit.first_violations.iter().for_each(|violation| eprintln!("{violation}"));
    daemon.keep_dir();
    Ok(ExitCode::FAILURE)
}

async fn play(args: &DemoArgs, daemon: &OwnDaemon) -> anyhow::Result<DemoReport> {
    let (nodes, tasks) = (openb::nodes(args.nodes)?, openb::tasks(args.tasks)?);
    let scheduler = Arc::new(Scheduler::new(daemon.client()?));

    let fleet = Fleet::start(nodes, &daemon.url()?, daemon.token(), TEARDOWN_MAX)?;
    step(2, STEPS, &format!("registering {} nodes with {} chips (openb)", fleet.size(), fleet.chips()));
    let registered = fleet.wait_up(scheduler.client(), &Progress::start("nodes up", fleet.size() as u64)).await?;
    done(&format!("all up after {:.1} s, each with the agent's own code", registered.as_secs_f64()));

    let replay = replay(args, &scheduler, &tasks).await?;
    let before_spike = Census::take(&scheduler).await.context("count the fleet")?;
    done(&format!(
        "{:.1} % of the fleet is allocated, {} jobs wait",
        before_spike.allocated_pct, before_spike.jobs_waiting
    ));

    let victims = Victims::look_out(&scheduler);
    let chips = args.spike_chips.unwrap_or(fleet.chips() / 15);
    step(4, STEPS, &format!("an inference spike of {chips} chips, which do not fit"));
    let (spike, rise) = Spike::rise(&scheduler, chips).await?;
    done(&format!("{} of {} jobs have all their chips: {}", rise.in_hand, rise.jobs, rise.all_chips_in_hand));
    let in_spike = Census::take(&scheduler).await.context("count the fleet")?;

    step(5, STEPS, "the spike ebbs, and training returns");
    let ebb = spike.ebb(&scheduler, victims).await?;
    let back = ebb.back_during_spike + ebb.back_after_ebb;
    done(&format!("{back} of {} preempted jobs have chips again: {}", ebb.preempted, ebb.return_after_ebb));
    // The last proofs of vacancy are on their way.
    sleep(Duration::from_millis(500)).await;
    let after = Census::take(&scheduler).await.context("count the fleet")?;

    step(6, STEPS, "auditing the event log in Postgres");
    let audit = audit(daemon, &scheduler).await?;
    done(&format!("{} events, {} grants, {} violations", audit.events, audit.grants, audit.violations));
    let (nodes, chips) = (fleet.size() as u64, fleet.chips());
    fleet.stop().await;
    Ok(DemoReport {
        machine: Machine::here(),
        nodes,
        chips,
        seconds: 0.0,
        seconds_to_register: registered.as_secs_f64(),
        jobs_submitted: audit.jobs_acknowledged,
        jobs_placed: audit.jobs_placed,
        jobs_waiting: after.jobs_waiting,
        replay,
        before_spike,
        spike: rise,
        in_spike,
        ebb,
        after,
        audit,
    })
}

async fn replay(args: &DemoArgs, scheduler: &Scheduler, tasks: &[openb::Task]) -> anyhow::Result<ReplayReport> {
    step(3, STEPS, &format!("replaying {} GPU tasks of the trace, in file order", tasks.len()));
    let over = Duration::from_secs(args.seconds).mul_f64(0.4);
    let progress = Progress::start("tasks submitted", tasks.len() as u64);
    let mut report = trace::replay(scheduler, tasks, over, &progress).await?;
    drop(progress);
    done(&format!("submit to lease: {}", report.submit_to_lease));
    let progress = Progress::start("clones of best-effort tasks, to fill the fleet", trace::CLONES_MAX as u64);
    trace::fill(scheduler, tasks, &mut report, &progress).await?;
    settle(scheduler).await?;
    Ok(report)
}

/// Waits until nobody is being preempted: the trace's own inference may have taken chips from its training.
async fn settle(scheduler: &Scheduler) -> anyhow::Result<()> {
    let deadline = Instant::now() + SETTLE_MAX;
    while !scheduler.jobs_in("preempting").await.context("look for notices")?.is_empty() && Instant::now() < deadline {
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

async fn audit(daemon: &OwnDaemon, scheduler: &Scheduler) -> anyhow::Result<AuditReport> {
    let log = event_log::read(&daemon.postgres_url()?).await?;
    let acknowledged = scheduler.acknowledged();
    tokio::task::spawn_blocking(move || Auditor::audit(&log, &acknowledged)).await.context("audit the log")
}
