//! Everything a run hits: the database, the daemon, the nodes. Whoever ends when nobody meant it to is counted and started
//! again, as a supervisor would.

use super::database::{Database, SOCKET};
use super::node::{Ground, Node, NodeOptions};
use super::proxy::{Proxy, Upstream};
use crate::own_daemon::{DaemonOptions, OwnDaemon};
use anyhow::Context;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// How often to look after what runs.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// From the SIGTERM to the kill of a workload: short, so that runs see many evictions.
const KILL_AFTER_MS: u64 = 300;
/// How long a chip may take to be proven vacant before it is quarantined, and a claim to complete.
pub(super) const VACATE_MS: u64 = 20_000;

/// Everything that runs.
#[derive(Debug)]
pub struct World {
    /// The nodes, in order of their names.
    pub nodes: Vec<Node>,
    /// The daemon.
    pub daemon: OwnDaemon,
    /// Between agents and clients and the daemon.
    pub net: Proxy,
    /// Between the daemon and the database.
    pub wire: Proxy,
    /// The database.
    pub database: Database,
    /// Daemons that ended without being hit.
    pub unasked_ends: u64,
    /// How many points of daemon and agent have been tried.
    pub next_point: (usize, usize),
    /// Which of them were come to, and how often.
    pub points_met: BTreeMap<&'static str, u64>,
    /// Last: what runs on it has to go first.
    pub ground: Ground,
    /// What the nodes are given as theirs.
    url: String,
    started: Instant,
}

impl World {
    /// A world of `nodes` nodes with `chips` chips each, up.
    pub async fn start(nodes: usize, chips: u32) -> anyhow::Result<World> {
        let ground = Ground::make("faults")?;
        // The account that Postgres runs under must be able to pass through.
        std::fs::set_permissions(ground.path(), std::fs::Permissions::from_mode(0o711)).context("open the folder")?;
        let database = Database::start(&ground.path().join("postgres"), Vec::new()).await?;
        let folder = ground.path().join("wire");
        std::fs::create_dir(&folder).context("make the folder of the proxy's socket")?;
        let (socket, database_url) = database.through(&folder);
        let wire = Proxy::unix(&folder.join(SOCKET), Upstream::Unix(socket))?;
        let policy = ground.path().join("policy.json");
        std::fs::write(&policy, policy_text()).context("write the policy")?;
        let options = DaemonOptions {
            database_url: Some(database_url),
            flags: vec!["--policy-file".into(), policy.display().to_string()],
            ..DaemonOptions::default()
        };
        let mut daemon = OwnDaemon::launch("faults", options)?;
        daemon.wait_ready().await?;
        let address = daemon.url()?.trim_start_matches("http://").parse().context("read the daemon's address")?;
        let net = Proxy::tcp("127.0.0.1", Upstream::Tcp(address)).await?;
        let url = net.url().context("a proxy of TCP")?;
        let (unasked_ends, started) = (0, Instant::now());
        let mut world = World {
            nodes: Vec::new(),
            daemon,
            net,
            wire,
            database,
            unasked_ends,
            next_point: (0, 0),
            points_met: BTreeMap::new(),
            ground,
            url,
            started,
        };
        for index in 0..nodes {
            // Every other node keeps memory for a while after its process is gone, as drivers do.
            let linger_ms = if index % 2 == 1 { 200 } else { 0 };
            let options = NodeOptions { chips, linger_ms, kill_after_ms: KILL_AFTER_MS, ..NodeOptions::default() };
            let node = Node::make(&world.ground, &format!("n{index}"), options)?;
            world.nodes.push(node);
        }
        let client = world.daemon.client()?;
        for node in &mut world.nodes {
            node.start(&world.url, world.daemon.token())?;
            node.wait_up(&client).await?;
        }
        Ok(world)
    }

    /// Starts whatever has ended without being asked to.
    pub fn tend(&mut self) -> anyhow::Result<()> {
        if self.daemon.has_ended() {
            self.unasked_ends += 1;
            self.daemon.start_again()?;
        }
        for node in &mut self.nodes {
            if node.has_ended() || node.pid().is_none() {
                node.start(&self.url, self.daemon.token())?;
            }
        }
        Ok(())
    }

    /// Lets time pass, and looks after what runs meanwhile.
    pub async fn pass(&mut self, time: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + time;
        loop {
            self.tend()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            sleep(left.min(LOOK_EVERY)).await;
        }
    }

    /// Notes whether a point was come to.
    pub(super) fn count_point(&mut self, (point, met): (&'static str, bool)) {
        *self.points_met.entry(point).or_default() += u64::from(met);
    }

    /// Where agents and clients find the daemon.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Milliseconds since the world began.
    pub fn age_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Leaves all data behind, and says where.
    pub fn keep(&mut self) {
        self.database.keep();
        self.daemon.keep_dir();
        self.ground.keep();
    }
}

/// Short bounds, and a queue with a limit.
fn policy_text() -> String {
    let mut policy = chiptide_model::Policy::default();
    policy.bounds.vacate = chiptide_model::Millis(VACATE_MS);
    policy.bounds.claim = chiptide_model::Millis(VACATE_MS);
    let mut limited = chiptide_model::QueuePolicy::default();
    limited.limit.normalised = Some(super::load::LIMIT);
    policy.queues.insert(super::load::LIMITED.to_owned(), limited);
    serde_json::to_string(&policy).unwrap_or_default()
}
