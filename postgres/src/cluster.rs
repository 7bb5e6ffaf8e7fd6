//! A cluster's life: initdb once, start, adopt, stop.

use crate::SUPERUSER;
use crate::account::Account;
use crate::address::{Address, run};
use crate::binaries::Binaries;
use crate::directory;
use crate::lockfile::{Lockfile, Status};
use crate::postmaster::Postmaster;
use crate::settings;
use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a server that is on its way out is waited for.
const LEAVING_MAX: Duration = Duration::from_secs(30);
/// How long a server that serves is watched before it is adopted: one whose keeper has just died goes within this.
const ADOPT_AFTER: Duration = Duration::from_secs(2);
/// How long a start may take, crash recovery included.
const START_MAX: Duration = Duration::from_secs(600);

/// What cluster to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Directory the cluster lives in: its data, socket and log. Made if missing.
    pub data_dir: PathBuf,
    /// Directory of the Postgres programs; searched for when absent.
    pub bin_dir: Option<PathBuf>,
    /// False for a throw-away cluster: nothing is synced to disk, and a power cut ruins it.
    pub durable: bool,
    /// More server settings; they win over ours.
    pub settings: Vec<(String, String)>,
}

/// A running private cluster. Dropping it stops it.
#[derive(Debug)]
pub struct Cluster {
    address: Address,
    postmaster: Postmaster,
}

impl Cluster {
    /// Makes the cluster if it is new, starts it, and returns once it answers. A server that already runs on the data
    /// and stays is adopted: used, and left alone by [`Cluster::stop`].
    ///
    /// Call it from a thread that outlives the cluster: the server is told to stop when the thread that forked it ends.
    pub fn start(options: &Options) -> Result<Cluster> {
        let account = Account::of_server()?;
        let home = directory::prepare(&options.data_dir, &account)?;
        let pgdata = home.join("pgdata");
        let _starting = lock(&home)?;
        let data_major = data_version(&pgdata)?;
        let binaries = Binaries::find(options.bin_dir.as_deref(), data_major)?;
        match data_major {
            None => initdb(&binaries, &account, &home, &pgdata, options.durable)?,
            Some(major) if major != binaries.major() => bail!(
                "the data in {} was made by Postgres {major}, but the programs here are version {}; install {major} \
                 (sudo apt-get install postgresql-{major}), or dump it there with pg_dumpall and restore it into a new \
                 directory",
                pgdata.display(),
                binaries.major()
            ),
            Some(_) => directory::check_owned(&pgdata, &account)?,
        }
        if let Some(running) = running(&pgdata)? {
            return adopt(binaries, &pgdata, &running);
        }
        fork(binaries, &account, &home, &pgdata, options)
    }

    /// URL of one database, as sqlx and libpq read it.
    pub fn url(&self, database: &str) -> String {
        self.address.url(database)
    }

    /// Creates a database unless it is there.
    pub fn ensure_database(&self, name: &str) -> Result<()> {
        self.address.ensure_database(name)
    }

    /// Where it answers; for threads that do not keep the cluster.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Process id of the server.
    pub fn pid(&self) -> u32 {
        self.postmaster.pid()
    }

    /// Whether somebody else keeps the server.
    pub fn is_adopted(&self) -> bool {
        self.postmaster.is_adopted()
    }

    /// How the server ended, if it has. Call it now and then: it also collects a dead server, which else blocks a
    /// restart on the same data.
    pub fn try_wait(&mut self) -> Result<Option<String>> {
        self.postmaster.try_wait()
    }

    /// Orderly stop: open transactions are rolled back, everything committed is on disk. Leaves an adopted one running.
    pub fn stop(mut self) -> Result<()> {
        self.postmaster.stop()
    }
}

/// One start at a time on a directory. Released by the kernel if we die.
fn lock(home: &Path) -> Result<File> {
    let path = home.join("start.lock");
    let file = File::options().create(true).append(true).open(&path);
    let file = file.with_context(|| format!("open {}", path.display()))?;
    file.lock().with_context(|| format!("lock {}", path.display()))?;
    Ok(file)
}

/// The major version that made the data, if there is data.
fn data_version(pgdata: &Path) -> Result<Option<u32>> {
    if !pgdata.exists() {
        return Ok(None);
    }
    let path = pgdata.join("PG_VERSION");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(Some(text.trim().parse().with_context(|| format!("{} holds no version", path.display()))?))
}

/// Makes the data directory beside its final place and moves it there when complete, so that a crash half-way leaves
/// nothing that looks like data.
fn initdb(binaries: &Binaries, account: &Account, home: &Path, pgdata: &Path, durable: bool) -> Result<()> {
    let fresh = home.join("pgdata.new");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).with_context(|| format!("remove the unfinished {}", fresh.display()))?;
    }
    directory::make_owned(&fresh, account)?;
    tracing::info!(dir = %pgdata.display(), version = binaries.major(), "making a private Postgres cluster");
    let mut initdb = Command::new(binaries.program("initdb"));
    initdb.arg("-D").arg(&fresh).args(["-U", SUPERUSER, "-E", "UTF8", "--no-locale", "-A", "trust"]);
    initdb.arg("--no-instructions").current_dir(&fresh).stdin(Stdio::null());
    if !durable {
        initdb.arg("--no-sync");
    }
    account.adopt(&mut initdb, Signal::TERM);
    run(&mut initdb).context("make the cluster")?;
    fs::rename(&fresh, pgdata).with_context(|| format!("move the new cluster to {}", pgdata.display()))?;
    File::open(home).and_then(|dir| dir.sync_all()).with_context(|| format!("sync {}", home.display()))
}

/// The server that already runs on the data and means to stay, if there is one. Waits for one that is leaving.
fn running(pgdata: &Path) -> Result<Option<Lockfile>> {
    let (begun, mut said) = (Instant::now(), false);
    loop {
        let Some(lock) = Lockfile::read(pgdata) else { return Ok(None) };
        let (live, zombie) = (lock.is_live(pgdata), lock.is_zombie());
        let waited = begun.elapsed();
        match lock.status {
            _ if !live && !zombie => return Ok(None),
            Status::Ready if live && waited >= ADOPT_AFTER => return Ok(Some(lock)),
            Status::Starting if live && waited < START_MAX => {}
            _ if waited < LEAVING_MAX => {}
            _ => bail!(
                "Postgres (pid {}) on {} has neither ended nor become ready within {} s{}; stop it, then start again",
                lock.pid,
                pgdata.display(),
                waited.as_secs(),
                if zombie { " (it is dead, but its parent has not collected it)" } else { "" }
            ),
        }
        if !std::mem::replace(&mut said, true) {
            tracing::info!(pid = lock.pid, "a server still runs on the data; waiting for it to leave or to stay");
        }
        sleep(Duration::from_millis(20));
    }
}

fn adopt(binaries: Binaries, pgdata: &Path, running: &Lockfile) -> Result<Cluster> {
    let socket_dir = running.socket_dir.clone().with_context(|| {
        format!("Postgres (pid {}) runs on {} but has no Unix socket", running.pid, pgdata.display())
    })?;
    let address = Address::new(binaries, socket_dir);
    ensure!(
        address.answers(),
        "Postgres (pid {}) runs on {} but does not answer at {}",
        running.pid,
        pgdata.display(),
        address.socket_dir().display()
    );
    tracing::info!(pid = running.pid, "adopted the Postgres that already runs on the data");
    Ok(Cluster { address, postmaster: Postmaster::adopted(pgdata, running.pid) })
}

fn fork(binaries: Binaries, account: &Account, home: &Path, pgdata: &Path, options: &Options) -> Result<Cluster> {
    let address = Address::new(binaries.clone(), directory::socket_dir(home, account)?);
    let log = home.join("postgres.log");
    let mut postgres = Command::new(binaries.program("postgres"));
    postgres.arg("-D").arg(pgdata).current_dir(home).stdin(Stdio::null());
    let own = settings::own(options.durable, address.socket_dir());
    for (name, value) in own.iter().chain(&options.settings) {
        postgres.arg("-c").arg(format!("{name}={value}"));
    }
    account.adopt(&mut postgres, Signal::INT);
    let begun = Instant::now();
    loop {
        let log_start = fs::metadata(&log).map_or(0, |found| found.len());
        let out = File::options().create(true).append(true).open(&log);
        let out = out.with_context(|| format!("open {}", log.display()))?;
        postgres.stdout(out.try_clone().context("share the log")?).stderr(out);
        let child = postgres.spawn().context("start postgres")?;
        let mut postmaster = Postmaster::forked(pgdata, child);
        let Some(status) = await_ready(&mut postmaster, pgdata, &address, &log)? else {
            let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(pid = postmaster.pid(), took_ms, "private Postgres is up");
            return Ok(Cluster { address, postmaster });
        };
        let said = tail(&log, log_start);
        // Workers of a postmaster that was killed leave a moment after it, and hold its shared memory until then.
        if !said.contains("is still in use") || begun.elapsed() > LEAVING_MAX {
            bail!("Postgres ended at its start ({status}); {} says:\n{said}", log.display());
        }
        sleep(Duration::from_millis(200));
    }
}

/// Waits until the server answers; returns how it ended if it does so before.
fn await_ready(postmaster: &mut Postmaster, pgdata: &Path, address: &Address, log: &Path) -> Result<Option<String>> {
    let begun = Instant::now();
    let mut told = begun;
    loop {
        if let Some(status) = postmaster.try_wait()? {
            return Ok(Some(status));
        }
        let ready = Lockfile::read(pgdata).is_some_and(|l| l.pid == postmaster.pid() && l.status == Status::Ready);
        if ready && address.answers() {
            return Ok(None);
        }
        ensure!(begun.elapsed() < START_MAX, "Postgres does not answer; see {}", log.display());
        if told.elapsed() > Duration::from_secs(5) {
            told = Instant::now();
            tracing::info!(waited_s = begun.elapsed().as_secs(), "Postgres is recovering; still waiting");
        }
        sleep(Duration::from_millis(10));
    }
}

/// The last lines that the log gained since `from`.
fn tail(log: &Path, from: u64) -> String {
    let mut bytes = Vec::new();
    let read = File::open(log).and_then(|mut file| {
        file.seek(SeekFrom::Start(from))?;
        file.read_to_end(&mut bytes)
    });
    if let Err(error) = read {
        return format!("(cannot read it: {error})");
    }
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}
