//! Everything a run hits: the database, two daemons, the nodes. Whoever ends when nobody meant it to is started again, as a
//! supervisor would.

use super::daemons::Daemons;
use super::database::{Database, SOCKET};
use super::disk::Disk;
use super::namespace::Namespace;
use super::node::{Ground, Node, NodeOptions};
use super::promotion::Promotion;
use super::proxy::{Proxy, Upstream};
use anyhow::Context;
use chiptide_api::Client;
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

/// The disk of the databases, MiB: large enough for two of them side by side.
const DATABASE_DISK_MIB: u64 = 3000;
/// The disk of an agent's state, MiB.
const STATE_DISK_MIB: u64 = 64;

/// Everything that runs.
#[derive(Debug)]
pub struct World {
    /// The nodes, in order of their names.
    pub nodes: Vec<Node>,
    /// The daemons.
    pub daemons: Daemons,
    /// Between the daemons and the database.
    pub wire: Proxy,
    /// The database.
    pub database: Database,
    /// Its disk, where one may be mounted. After the database: that ends first.
    pub database_disk: Option<Disk>,
    /// Replicas that were promoted.
    pub promotions: Vec<Promotion>,
    /// Times the leader told that the disk of the database was full.
    pub full_told: u64,
    /// How many points of daemon and agent have been tried.
    pub next_point: (usize, usize),
    /// Which of them were come to, and how often.
    pub points_met: BTreeMap<&'static str, u64>,
    /// Last: what runs on it has to go first.
    pub ground: Ground,
    started: Instant,
    /// At which door each node finds the daemons.
    doors: Vec<usize>,
}

impl World {
    /// A world of `nodes` nodes with `chips` chips each, up.
    pub async fn start(nodes: usize, chips: u32) -> anyhow::Result<World> {
        let ground = Ground::make("faults")?;
        // The account that Postgres runs under must be able to pass through.
        std::fs::set_permissions(ground.path(), std::fs::Permissions::from_mode(0o711)).context("open the folder")?;
        let database_disk = Disk::mount(&ground.path().join("postgres"), DATABASE_DISK_MIB)?;
        let settings = vec![("max_wal_size".into(), "128MB".into())];
        let database = Database::start(&ground.path().join("postgres"), settings).await?;
        let folder = ground.path().join("wire");
        std::fs::create_dir(&folder).context("make the folder of the proxy's socket")?;
        let wire = Proxy::unix(&folder.join(SOCKET), Upstream::Unix(database.socket()))?;
        let policy = ground.path().join("policy.json");
        std::fs::write(&policy, policy_text()).context("write the policy")?;
        let flags = vec!["--policy-file".into(), policy.display().to_string()];
        let daemons = Daemons::start(database.url_through(&folder), ground.path(), flags).await?;
        let mut world = World {
            nodes: Vec::new(),
            daemons,
            wire,
            database,
            database_disk,
            promotions: Vec::new(),
            full_told: 0,
            next_point: (0, 0),
            points_met: BTreeMap::new(),
            ground,
            started: Instant::now(),
            doors: Vec::new(),
        };
        for index in 0..nodes {
            // Every other node keeps memory for a while after its process is gone, as drivers do.
            let linger_ms = if index % 2 == 1 { 200 } else { 0 };
            let options = NodeOptions { chips, linger_ms, kill_after_ms: KILL_AFTER_MS, ..NodeOptions::default() };
            let mut node = Node::make(&world.ground, &format!("n{index}"), options)?;
            node.give_disk(STATE_DISK_MIB)?;
            // Every other one is in a network of its own.
            let namespace = if index % 2 == 0 { Namespace::make(index)? } else { None };
            let door = match namespace {
                Some(namespace) => {
                    let door = world.daemons.open_door(namespace.outside()).await?;
                    node.enter(namespace);
                    door
                }
                None => 0,
            };
            world.doors.push(door);
            world.nodes.push(node);
        }
        let client = world.client()?;
        for index in 0..nodes {
            world.start_agent(index)?;
            world.nodes[index].wait_up(&client).await?;
        }
        Ok(world)
    }

    /// A client that knows both daemons, and has the admin's token.
    pub fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::new(&self.daemons.url(0, 0)?, self.daemons.token())?)
    }

    /// Starts the agent of a node. Half of the agents ask the one daemon first, half the other.
    pub fn start_agent(&mut self, index: usize) -> anyhow::Result<()> {
        let (url, token) = (self.daemons.url(self.doors[index], index)?, self.daemons.token().to_owned());
        self.nodes[index].start(&url, &token)
    }

    /// Starts whatever has ended without being asked to.
    pub fn tend(&mut self) -> anyhow::Result<()> {
        self.daemons.tend()?;
        for index in 0..self.nodes.len() {
            if self.nodes[index].has_ended() || self.nodes[index].pid().is_none() {
                self.start_agent(index)?;
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

    /// Milliseconds since the world began.
    pub fn age_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Leaves all data behind, and says where.
    pub fn keep(&mut self) {
        if let Some(disk) = &mut self.database_disk {
            disk.keep();
        }
        self.nodes.iter_mut().for_each(Node::keep_disk);
        self.daemons.keep();
        self.ground.keep();
    }
}

/// Short bounds, and a queue with a limit.
fn policy_text() -> String {
    let mut policy = chiptide_model::Policy::default();
    policy.bounds.vacate = chiptide_model::Millis(VACATE_MS);
    policy.bounds.claim = chiptide_model::Millis(VACATE_MS);
    policy.node_loss.kill = chiptide_model::Millis(1000);
    policy.node_loss.watchdog = chiptide_model::Millis(2000);
    let mut limited = chiptide_model::QueuePolicy::default();
    limited.limit.normalised = Some(super::load::LIMIT);
    policy.queues.insert(super::load::LIMITED.to_owned(), limited);
    serde_json::to_string(&policy).unwrap_or_default()
}
