//! A second cluster that follows the first, for whoever wants to see what a failover does. Chiptide runs none for itself: it
//! uses the replicas of the database it is given.

use crate::SUPERUSER;
use crate::account::Account;
use crate::address::{Address, PORT, run};
use crate::cluster::Cluster;
use crate::directory;
use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use std::path::Path;
use std::process::{Command, Stdio};

/// Copies a running cluster into `data_dir`, which must hold none. Started by [`Cluster::start`], the copy follows the first
/// over its socket and takes no writes, until it is promoted.
pub fn copy(primary: &Address, data_dir: &Path) -> Result<()> {
    let account = Account::of_server()?;
    let home = directory::prepare(data_dir, &account)?;
    let pgdata = home.join("pgdata");
    ensure!(!pgdata.exists(), "{} holds a cluster already", home.display());
    let mut backup: Command = primary.client("pg_basebackup");
    backup.arg("-D").arg(&pgdata).args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "-X", "stream"]);
    backup.current_dir(&home).stdin(Stdio::null());
    account.adopt(&mut backup, Signal::TERM);
    run(&mut backup).with_context(|| format!("copy the cluster to {}", pgdata.display())).map(drop)
}

impl Cluster {
    /// Makes a replica a primary of its own, and returns once it takes writes.
    pub fn promote(&self) -> Result<()> {
        let said = self.ask("select pg_promote(true, 60)").context("promote the replica")?;
        ensure!(said == "t", "the replica was not promoted within a minute");
        Ok(())
    }

    /// Lets commits of this primary wait for a replica that is connected; or no longer.
    pub fn set_synchronous(&self, synchronous: bool) -> Result<()> {
        let names = if synchronous { "*" } else { "" };
        self.ask(&format!("alter system set synchronous_standby_names = '{names}'"))?;
        self.ask("select pg_reload_conf()").map(drop)
    }

    /// Lets a replica hear nothing of its primary any more; what it has, it keeps.
    pub fn stop_following(&self) -> Result<()> {
        self.ask("alter system set primary_conninfo = ''")?;
        self.ask("select pg_reload_conf()").map(drop)
    }

    /// How many replicas follow: `sync` or `async`, as this primary has them.
    pub fn followers(&self, state: &str) -> Result<u32> {
        ensure!(matches!(state, "sync" | "async"), "no such state: {state}");
        let sql = format!(
            "select count(*) from pg_stat_replication where state = 'streaming' and sync_state = '{state}' \
             and usename = '{SUPERUSER}'"
        );
        self.ask(&sql)?.parse().context("read a count")
    }

    /// Whether a replica is connected to its primary.
    pub fn is_following(&self) -> Result<bool> {
        Ok(self.ask("select count(*) from pg_stat_wal_receiver where status = 'streaming'")? != "0")
    }

    fn ask(&self, sql: &str) -> Result<String> {
        let answer = run(self.address().psql("postgres").args(["-tAc", sql]));
        Ok(answer
            .with_context(|| format!("ask port {PORT} of {}", self.address().socket_dir().display()))?
            .trim()
            .to_owned())
    }
}
