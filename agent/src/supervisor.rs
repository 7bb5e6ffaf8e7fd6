//! What the service manager is told (`sd_notify`(3)): that the agent is up, and, where it keeps a watchdog (`WatchdogSec`),
//! that it moves. An agent that hangs is ended by its manager and started anew; its workloads go on meanwhile, and each is
//! watched by its own guardian, which ends fenced work in time whether or not an agent lives.

use crate::reading::NodeReading;
use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::interval;
use tracing::warn;

/// The manager's end.
#[derive(Debug)]
pub struct Supervisor {
    socket: UnixDatagram,
    address: SocketAddr,
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// The manager that started this process, if one listens.
    pub fn from_env() -> Option<Supervisor> {
        let name = env::var_os("NOTIFY_SOCKET")?;
        let for_us = env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
        let watchdog = env::var("WATCHDOG_USEC").ok().filter(|_| for_us).and_then(|usec| usec.parse().ok());
        match Supervisor::at(&name, watchdog.filter(|usec| *usec > 0).map(Duration::from_micros)) {
            Ok(supervisor) => Some(supervisor),
            Err(error) => {
                warn!("the service manager cannot be told anything: {error}");
                None
            }
        }
    }

    /// A manager that listens at `name` (a path, or an abstract name after `@`) and ends who is silent for `watchdog`.
    pub fn at(name: &OsStr, watchdog: Option<Duration>) -> io::Result<Supervisor> {
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(hidden) => SocketAddr::from_abstract_name(hidden)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that does not listen must not hold the agent up.
        socket.set_nonblocking(true)?;
        Ok(Supervisor { socket, address, watchdog })
    }

    /// Says that the agent is up, and from then on that it moves: as long as this process's tasks are run and a reading comes
    /// at least every `stale_after` (absent: readings come when they like). Ends never.
    pub async fn tell(self, readings: watch::Receiver<NodeReading>, stale_after: Option<Duration>) {
        self.say("READY=1");
        let Some(watchdog) = self.watchdog else { return };
        // Half of it, as the manual says: one that is late is no death.
        let mut beat = interval((watchdog / 2).max(Duration::from_millis(1)));
        loop {
            beat.tick().await;
            let age = readings.borrow().taken.elapsed();
            if stale_after.is_none_or(|limit| age <= limit) {
                self.say("WATCHDOG=1");
            }
        }
    }

    fn say(&self, what: &str) {
        // One message lost is made up for by the next.
        let _ = self.socket.send_to_addr(what.as_bytes(), &self.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::{chip, reading_at};
    use tokio::time::Instant;

    const BEAT: Duration = Duration::from_millis(20);

    async fn heard(stale_after: Duration, messages: usize) -> Vec<String> {
        let folder = tempfile::tempdir().expect("a folder");
        let name = folder.path().join("notify");
        let manager = tokio::net::UnixDatagram::bind(&name).expect("bound");
        let supervisor = Supervisor::at(name.as_os_str(), Some(BEAT)).expect("a supervisor");
        let (_readings, newest) = watch::channel(reading_at(Instant::now(), [chip("c0")]));
        let telling = tokio::spawn(supervisor.tell(newest, Some(stale_after)));
        let mut heard = Vec::new();
        let mut text = [0; 64];
        while heard.len() < messages
            && let Ok(Ok(length)) = tokio::time::timeout(BEAT * 50, manager.recv(&mut text)).await
        {
            heard.push(String::from_utf8_lossy(&text[..length]).into_owned());
        }
        telling.abort();
        heard
    }

    #[tokio::test]
    async fn an_agent_that_moves_says_so_and_one_whose_readings_have_stopped_does_not() {
        assert_eq!(heard(Duration::from_secs(3600), 3).await, ["READY=1", "WATCHDOG=1", "WATCHDOG=1"]);
        assert_eq!(heard(Duration::ZERO, 2).await, ["READY=1"]);
    }
}
