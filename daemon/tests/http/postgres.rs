//! A Postgres that a test may take away and bring back.

use chiptide_postgres::{Cluster, Options};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

static CLUSTERS: AtomicU32 = AtomicU32::new(0);

enum Ask {
    Stop,
    Start,
}

/// A cluster of the test's own, kept by a thread of its own: Postgres ends with the thread that forked it.
pub(crate) struct Postgres {
    pub(crate) url: String,
    ask: Sender<Ask>,
    done: Receiver<u32>,
    dir: PathBuf,
    mounted: bool,
}

impl Postgres {
    /// A cluster whose commits are waited for.
    pub(crate) async fn start() -> Postgres {
        Postgres::start_in(Postgres::new_dir(), false).await
    }

    /// The same on a small disk of its own, in memory; `None`, and a word why, where that cannot be mounted.
    pub(crate) async fn start_on_small_disk(size_mib: u32) -> Option<Postgres> {
        let dir = Postgres::new_dir();
        std::fs::create_dir(&dir).expect("a directory");
        let size = format!("size={size_mib}m,mode=0711");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&dir).output();
        if !mount.is_ok_and(|mount| mount.status.success()) {
            println!("skipped: no small disk can be mounted here (that takes root)");
            std::fs::remove_dir(&dir).ok();
            return None;
        }
        Some(Postgres::start_in(dir, true).await)
    }

    fn new_dir() -> PathBuf {
        let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        std::env::temp_dir().join(format!("chiptide-outage-{}-{number}", std::process::id()))
    }

    async fn start_in(dir: PathBuf, mounted: bool) -> Postgres {
        let (ask, asked) = channel();
        let (did, done) = channel();
        let (told, url) = channel();
        let data_dir = dir.join("postgres");
        std::thread::spawn(move || keep(data_dir, &asked, &did, &told));
        let url = tokio::task::spawn_blocking(move || url.recv()).await.expect("no panic").expect("a cluster");
        Postgres { url, ask, done, dir, mounted }
    }

    /// Stops it at once, as a crash would.
    pub(crate) fn stop(&self) {
        self.ask.send(Ask::Stop).expect("its thread lives");
        self.done.recv().expect("it stops");
    }

    /// Starts it again; answers its process id.
    pub(crate) fn start_again(&self) -> u32 {
        self.ask.send(Ask::Start).expect("its thread lives");
        self.done.recv().expect("it starts")
    }

    /// The directory above its data.
    pub(crate) fn dir(&self) -> &std::path::Path {
        &self.dir
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.ask.send(Ask::Stop).ok();
        self.done.recv_timeout(Duration::from_secs(20)).ok();
        if self.mounted {
            Command::new("umount").arg(&self.dir).output().ok();
        }
        std::fs::remove_dir_all(&self.dir).ok();
    }
}

fn keep(data_dir: PathBuf, asked: &Receiver<Ask>, did: &Sender<u32>, told: &Sender<String>) {
    let settings =
        [("synchronous_commit", "on"), ("shared_buffers", "16MB"), ("max_wal_size", "64MB"), ("min_wal_size", "32MB")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let options = Options { data_dir, bin_dir: None, durable: false, settings };
    let mut cluster = Some(Cluster::start(&options).expect("a cluster"));
    let first = cluster.as_ref().expect("just started");
    first.ensure_database("test").expect("a database");
    told.send(first.url("test")).expect("the test waits");
    while let Ok(ask) = asked.recv() {
        match ask {
            Ask::Stop => {
                if let Some(mut running) = cluster.take() {
                    Command::new("kill").args(["-QUIT", &running.pid().to_string()]).status().expect("kill");
                    while running.try_wait().expect("watched").is_none() {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }
                did.send(0).ok();
            }
            Ask::Start => {
                let again = Cluster::start(&options).expect("a cluster");
                did.send(again.pid()).ok();
                cluster = Some(again);
            }
        }
    }
}
