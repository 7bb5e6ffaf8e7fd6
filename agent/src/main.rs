//! `chiptide-agent`: reads this machine's chips and runs the node's agent until it is told to stop.

use anyhow::Context;
use chiptide_agent::config::{CommandLine, Config, DevicePolicy, ForeignPolicy, LogFormat};
use chiptide_agent::credential::Credential;
use chiptide_agent::fault_point;
use chiptide_agent::faults::{CleanRules, ForeignProcesses, Watching, XidTable, kmsg};
use chiptide_agent::holders::DeviceNodes;
use chiptide_agent::nvml::{self, NvmlOptions};
use chiptide_agent::work::{Bounds, Containment, DeviceLimits, User, can_limit, guard};
use chiptide_agent::{Agent, NodeConfig, NodeReading, Pace, StateDir, Supervisor, Work, WorkOptions, host};
use chiptide_api::Client;
use clap::Parser;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

/// How often to sample while something is to be proven vacant, at first.
const HURRIED: Duration = Duration::from_millis(20);
/// So many sightings of XIDs may wait; a flood beyond is counted.
const SIGHTINGS_MAX: usize = 256;
/// A source that misses this many rounds in a row is stuck.
const MISSED_ROUNDS: u32 = 5;

fn main() -> ExitCode {
    fault_point::set_up();
    // The guardian of a workload is this binary too; it needs nothing of what follows.
    let mut arguments = std::env::args_os().skip(1);
    if let (Some(flag), Some(folder), None) = (arguments.next(), arguments.next(), arguments.next())
        && flag == guard::FLAG
    {
        return ended(guard::run(folder.as_ref()));
    }
    // The first provider installed is the one all TLS uses; nothing has run before this line.
    rustls::crypto::aws_lc_rs::default_provider().install_default().ok();
    ended(start(&CommandLine::parse()))
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chiptide-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(command: &CommandLine) -> anyhow::Result<()> {
    let config = Config::load(command)?;
    if command.print_config {
        print!("{}", config.to_toml());
        return Ok(());
    }
    log_to_stderr(config.log_format);
    // One thread: what blocks has threads of its own, and a node's memory belongs to its jobs.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("start the runtime")?;
    let ended = runtime.block_on(run(command, config));
    // The driver may be stuck in a call for ever; it is not waited for.
    runtime.shutdown_background();
    ended
}

async fn run(command: &CommandLine, config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let pace = Pace::new(Duration::from_millis(config.sample_every.0), HURRIED);
    let work = async {
        // Before the driver is touched: a second agent shall be gone before it does anything.
        let state = match command.once || command.watch {
            true => None,
            false => Some(StateDir::open(&config.state_dir)?),
        };
        let for_chips = (config.clone(), pace.clone());
        let starting = tokio::task::spawn_blocking(move || Chips::start(&for_chips.0, for_chips.1));
        let chips = starting.await.context("start the chip source")??;
        match state {
            None => print(chips.readings.clone(), command.watch).await,
            Some(state) => serve(&config, &chips, pace.clone(), state).await,
        }
    };
    tokio::select! {
        ended = work => ended,
        _ = terminate.recv() => stopped("SIGTERM"),
        _ = tokio::signal::ctrl_c() => stopped("SIGINT"),
    }
}

fn stopped(signal: &str) -> anyhow::Result<()> {
    info!(signal, "stopping");
    Ok(())
}

async fn serve(config: &Config, chips: &Chips, pace: Pace, state: StateDir) -> anyhow::Result<()> {
    let (boot_id, rules) = (host::boot_id()?, CleanRules::with(&config.clean)?);
    let table = xid_table(config)?;
    let foreign = match config.foreign_processes {
        ForeignPolicy::Report => ForeignProcesses::Report,
        ForeignPolicy::Evict => ForeignProcesses::Evict(Duration::from_millis(config.kill_after.0)),
    };
    let (seeing, sightings) = mpsc::channel(SIGHTINGS_MAX);
    if let Some(nvml) = chips.nvml {
        nvml::listen(nvml, seeing.clone()).context("start listening to the driver's events")?;
    }
    if !config.kmsg.as_os_str().is_empty() {
        kmsg::start(&config.kmsg, seeing.clone()).context("start reading the kernel's log")?;
    }
    drop(seeing);
    let client = connect(config, &state).await?;
    let node = NodeConfig {
        node: config.node.clone(),
        boot_id: boot_id.clone(),
        cpu_milli: config.cpu_milli,
        memory_mib: config.memory_mib,
        rack: config.rack.clone(),
        link_domain: config.link_domain.clone(),
        labels: config.labels.clone(),
        report_every: config.report_every.map(|every| Duration::from_millis(every.0)),
        stale_after: chips.stale_after,
    };
    let state_dir = state.path().to_owned();
    let options = work_options(config, &state, &node.boot_id)?;
    let work =
        tokio::task::spawn_blocking(|| Work::start(options)).await.context("start the keeper of workloads")??;
    let agent = Agent::new(node, client, chips.readings.clone()).remembering(state)?.running(work);
    let agent = agent.weighing(DeviceNodes::of_machine(), state_dir.clone());
    let agent = agent.watching(Watching::new(table, rules, &boot_id, state_dir, sightings, foreign));
    tokio::spawn(pace.follow(agent.orders()));
    if let Some(supervisor) = Supervisor::from_env() {
        tokio::spawn(supervisor.tell(chips.readings.clone(), chips.stale_after));
    }
    info!(node = %config.node, daemon = %config.daemon, "starting");
    let (_never, stop) = watch::channel(false);
    agent.run(stop).await;
    Ok(())
}

/// A client with what lets this agent in: the token or certificate that is given, else the node's own credential.
async fn connect(config: &Config, state: &StateDir) -> anyhow::Result<Client> {
    let (token, tls) = (config.token()?, config.tls()?);
    let has_certificate = tls.identity.is_some();
    let client =
        Client::with_tls(&config.daemon, token.as_deref().unwrap_or_default(), tls).context("make a client")?;
    if token.is_none() && !has_certificate {
        let credential = Credential::of(state.path());
        credential.take_up(&client, &config.node, config.join_token()?.as_deref()).await?;
        tokio::spawn(credential.keep_young(client.clone(), config.node.clone()));
    }
    Ok(client)
}

fn xid_table(config: &Config) -> anyhow::Result<XidTable> {
    let shipped = XidTable::shipped().context("read the built-in table of XIDs")?;
    let Some(file) = &config.xid_table else { return Ok(shipped) };
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    shipped.overridden(&text).with_context(|| format!("read {}", file.display()))
}

fn work_options(config: &Config, state: &StateDir, boot_id: &str) -> anyhow::Result<WorkOptions> {
    let user = config.workload_user.as_deref().map(User::named).transpose()?;
    let containment = match user.is_none() && rustix::process::geteuid().is_root() {
        true => Containment::Refused("the agent is root, and workload_user does not say who runs them".to_owned()),
        false => Containment::decide(config.cgroup_root.as_deref(), config.process_groups),
    };
    let (containment, device_limits) = device_limits(config.device_limits, containment);
    Ok(WorkOptions {
        containment,
        device_limits,
        state_dir: state.path().to_owned(),
        boot_id: boot_id.to_owned(),
        user,
        users: config.workload_users.iter().map(|name| User::for_jobs(name)).collect::<Result<_, _>>()?,
        bounds: Bounds {
            kill_after: Duration::from_millis(config.kill_after.0),
            verify_for: Duration::from_millis(config.verify_for.0),
        },
        restart_after: Duration::from_millis(config.restart_after.0),
        output_bytes_max: config.output_max_mib.saturating_mul(1024 * 1024),
        // This very binary, also when another has taken its place on disk.
        guardian: "/proc/self/exe".into(),
    })
}

/// How workloads are kept from the chips of others, said once.
fn device_limits(policy: DevicePolicy, containment: Containment) -> (Containment, Option<DeviceLimits>) {
    let none = match (policy, &containment) {
        (DevicePolicy::Off, _) | (_, Containment::Refused(_)) => return (containment, None),
        (_, Containment::Groups) => Err("they run in process groups".to_owned()),
        (_, Containment::Cgroups(_)) => can_limit().map_err(|error| error.to_string()),
    };
    let nodes = DeviceNodes::of_machine().ok_or_else(|| "the agent is not root".to_owned());
    match (none.and(nodes), policy) {
        (Ok(nodes), _) => {
            info!("workloads are kept from the device nodes of chips that are not theirs");
            (containment, Some(DeviceLimits { nodes, required: policy == DevicePolicy::Require }))
        }
        (Err(why), DevicePolicy::Require) => {
            (Containment::Refused(format!("device_limits are required, and cannot be had: {why}")), None)
        }
        (Err(why), _) => {
            warn!("workloads are not kept from the device nodes of other chips: {why}");
            (containment, None)
        }
    }
}

/// Where readings come from.
struct Chips {
    readings: watch::Receiver<NodeReading>,
    stale_after: Option<Duration>,
    /// The driver, where there is one.
    nvml: Option<&'static nvml::Nvml>,
    /// Of a node without chips: it must outlive the agent, or the agent takes its source for dead.
    _none: Option<watch::Sender<NodeReading>>,
}

impl Chips {
    fn start(config: &Config, pace: Pace) -> anyhow::Result<Chips> {
        let deadline = Duration::from_millis(config.read_deadline.0);
        let stale_after = Duration::from_millis(config.sample_every.0).max(deadline) * MISSED_ROUNDS;
        match nvml::start(NvmlOptions { library: config.nvml_library.clone(), pace, deadline }) {
            Ok((nvml, readings)) => {
                Ok(Chips { readings, stale_after: Some(stale_after), nvml: Some(nvml), _none: None })
            }
            Err(error) if config.allow_no_chips => {
                warn!("running without chips: {error}");
                let none = NodeReading { taken: tokio::time::Instant::now(), driver_version: None, chips: Vec::new() };
                let (sender, readings) = watch::channel(none);
                Ok(Chips { readings, stale_after: None, nvml: None, _none: Some(sender) })
            }
            Err(error) => Err(error).context("read chips (a node without any needs --allow-no-chips)"),
        }
    }
}

async fn print(mut readings: watch::Receiver<NodeReading>, watch: bool) -> anyhow::Result<()> {
    loop {
        let reading = readings.borrow_and_update().to_json()?;
        let text = if watch { reading.to_string() } else { serde_json::to_string_pretty(&reading)? };
        if let Err(error) = writeln!(io::stdout(), "{text}") {
            // Whoever read along has had enough.
            return if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error).context("print") };
        }
        if !watch || readings.changed().await.is_err() {
            return Ok(());
        }
    }
}

fn log_to_stderr(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter);
    let log = log.with_ansi(io::stderr().is_terminal()).with_writer(io::stderr);
    match format {
        LogFormat::Human => log.with_target(false).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}
