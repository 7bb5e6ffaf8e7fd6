//! A fleet in one process: the agent crate's own code on scripted chips, talking to a daemon over real HTTP.

use crate::progress::Progress;
use crate::scripted_node::{NodeShape, ScriptedNode};
use anyhow::{Context, bail};
use chiptide_agent::{Agent, NodeConfig};
use chiptide_api::Client;
use clap::Args;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Nodes that share one HTTP client, and so one pool of connections.
const NODES_PER_CLIENT: usize = 250;
/// Longest that a process takes to leave a chip, unless told otherwise; each node has a time of its own up to this.
pub const TEARDOWN_MAX: Duration = Duration::from_millis(20);

/// How to reach a daemon.
#[derive(Args, Clone, Debug)]
pub struct Target {
    /// Where the daemon is, e.g. `http://127.0.0.1:7070`.
    #[arg(long)]
    pub url: String,
    /// File that holds the bearer token.
    #[arg(long, required_unless_present = "token")]
    pub token_file: Option<PathBuf>,
    /// The bearer token itself.
    #[arg(long, env = "CHIPTIDE_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
}

impl Target {
    /// The bearer token.
    pub fn read_token(&self) -> anyhow::Result<String> {
        match (&self.token, &self.token_file) {
            (Some(token), _) => Ok(token.clone()),
            (None, Some(file)) => {
                let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
                Ok(text.trim().to_owned())
            }
            (None, None) => bail!("give --token-file or --token"),
        }
    }
}

/// Registers thousands of nodes with a daemon and keeps them alive until Ctrl-C.
#[derive(Args, Debug)]
pub struct FleetArgs {
    #[command(flatten)]
    target: Target,
    /// How many nodes; by default 16, or all there are with `--openb`.
    #[arg(long)]
    nodes: Option<usize>,
    /// How many chips each has.
    #[arg(long, default_value_t = 8)]
    chips_per_node: u32,
    /// Product name of the chips.
    #[arg(long, default_value = "NVIDIA H20")]
    product: String,
    /// The GPU nodes of the openb trace instead, 1,213 of them.
    #[arg(long)]
    openb: bool,
    /// Longest a process takes to leave a chip, milliseconds.
    #[arg(long, default_value_t = 20)]
    teardown_ms: u64,
}

/// `chiptide-sim fleet`.
pub async fn run(args: FleetArgs) -> anyhow::Result<()> {
    let shapes = match args.openb {
        true => crate::openb::nodes(args.nodes.unwrap_or(usize::MAX))?,
        false => uniform(args.nodes.unwrap_or(16), args.chips_per_node, &args.product),
    };
    let (url, token) = (args.target.url.clone(), args.target.read_token()?);
    let fleet = Fleet::start(shapes, &url, &token, Duration::from_millis(args.teardown_ms))?;
    fleet.wait_up(&Client::new(&url, &token)?, &Progress::start("registering nodes", fleet.size() as u64)).await?;
    eprintln!("{} nodes with {} chips are up; Ctrl-C ends them", fleet.size(), fleet.chips());
    // Runs until `main` sees the signal and drops this future, which stops the agents.
    std::future::pending().await
}

/// `count` nodes that are all alike.
pub fn uniform(count: usize, chips: u32, product: &str) -> Vec<NodeShape> {
    (0..count).map(|index| NodeShape::uniform(index, product, chips)).collect()
}

/// Running agents. They stop when it is dropped.
#[derive(Debug)]
pub struct Fleet {
    names: BTreeSet<String>,
    chips: u64,
    stop: watch::Sender<bool>,
    running: JoinSet<()>,
}

impl Fleet {
    /// Starts an agent for every node. They register over the next second, so that no two reports fall together.
    pub fn start(shapes: Vec<NodeShape>, url: &str, token: &str, teardown_max: Duration) -> anyhow::Result<Fleet> {
        let stop = watch::Sender::new(false);
        let (mut running, mut clients) = (JoinSet::new(), Vec::new());
        for _ in 0..shapes.len().div_ceil(NODES_PER_CLIENT) {
            clients.push(Client::new(url, token)?);
        }
        let names = shapes.iter().map(|shape| shape.name.clone()).collect();
        let chips = shapes.iter().map(|shape| u64::from(shape.chips)).sum();
        let spread = Duration::from_secs(2).checked_div(shapes.len().max(1) as u32).unwrap_or_default();
        for (index, shape) in shapes.into_iter().enumerate() {
            let teardown = teardown_max.mul_f64((index % 21) as f64 / 20.0);
            let client = clients[index / NODES_PER_CLIENT].clone();
            running.spawn(run_node(shape, teardown, client, spread * index as u32, stop.subscribe()));
        }
        Ok(Fleet { names, chips, stop, running })
    }

    /// How many nodes.
    pub fn size(&self) -> usize {
        self.names.len()
    }

    /// How many chips.
    pub fn chips(&self) -> u64 {
        self.chips
    }

    /// Waits until the daemon calls every node up; refuses after two minutes.
    pub async fn wait_up(&self, client: &Client, progress: &Progress) -> anyhow::Result<Duration> {
        let start = Instant::now();
        loop {
            // A daemon that is just being restarted does not answer; it will.
            let up = self.count_up(client).await.unwrap_or(0);
            progress.at(up as u64);
            if up == self.names.len() {
                return Ok(start.elapsed());
            }
            if start.elapsed() > Duration::from_secs(120) {
                bail!("only {up} of {} nodes were up after two minutes", self.names.len());
            }
            sleep(Duration::from_millis(250)).await;
        }
    }

    async fn count_up(&self, client: &Client) -> Result<usize, chiptide_api::ClientError> {
        let (mut up, mut cursor) = (0, None);
        loop {
            let mut filters = vec![("limit", "500".to_owned())];
            filters.extend(cursor.map(|cursor| ("cursor", cursor)));
            let page = client.nodes(&filters).await?;
            up += page.items.iter().filter(|node| node.state == "up" && self.names.contains(&node.id)).count();
            match page.next_cursor {
                Some(next) => cursor = Some(next),
                None => return Ok(up),
            }
        }
    }

    /// Stops every agent and waits for it.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let all_gone = async { while self.running.join_next().await.is_some() {} };
        // An agent in a long poll notices at once; whatever does not is aborted when the fleet is dropped.
        let _ = tokio::time::timeout(Duration::from_secs(2), all_gone).await;
    }
}

async fn run_node(shape: NodeShape, teardown: Duration, client: Client, after: Duration, stop: watch::Receiver<bool>) {
    sleep(after).await;
    let mut node = ScriptedNode::new(&shape, teardown);
    let (publish, readings) = watch::channel(node.reading(Instant::now()));
    let config = NodeConfig {
        boot_id: format!("boot-{}", shape.name),
        node: shape.name,
        cpu_milli: shape.cpu_milli,
        memory_mib: shape.memory_mib,
        ..NodeConfig::default()
    };
    let agent = Agent::new(config, client, readings);
    let orders = agent.orders();
    tokio::join!(agent.run(stop.clone()), node.run(orders, publish, stop));
}
