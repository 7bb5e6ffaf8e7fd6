//! Workloads: what to run in each replica, what to do when it fails, and how replicas ended.

use crate::id::NodeId;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// What to run in each replica; carried to the agents.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Workload {
    /// Argument vector; never a shell string.
    pub command: Vec<String>,
    /// Environment added for the process.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working directory; a folder of the replica's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// What to do when a replica fails.
    #[serde(default, skip_serializing_if = "Restart::is_never")]
    pub restart: Restart,
    /// Sent to each replica's first process once notice is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice_signal: Option<Signal>,
    /// The user to run as, of those the node's agent allows; the agent's choice when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// What to do when a replica fails while its lease lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Restart {
    /// The job fails.
    #[default]
    Never,
    /// All replicas are started anew on the chips they have, until this has happened so often in the job's life.
    OnFailure {
        /// How often.
        times: u32,
    },
}

impl Restart {
    /// How often all replicas may be started anew.
    pub fn times(self) -> u32 {
        match self {
            Restart::Never => 0,
            Restart::OnFailure { times } => times,
        }
    }

    fn is_never(&self) -> bool {
        *self == Restart::Never
    }
}

/// How the work of a replica ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum WorkEnd {
    /// It exited by itself.
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// A signal ended it.
    Killed {
        /// The signal's number.
        signal: i32,
        /// Whether the kernel did it for want of memory within the replica's limit.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        out_of_memory: bool,
    },
    /// It could not be started, or what became of it is not known.
    Failed {
        /// What happened.
        reason: String,
    },
}

impl WorkEnd {
    /// Whether it did what it should.
    pub fn is_success(&self) -> bool {
        *self == WorkEnd::Exited { code: 0 }
    }
}

impl fmt::Display for WorkEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WorkEnd::Exited { code } => write!(f, "exit code {code}"),
            WorkEnd::Killed { signal, out_of_memory } => {
                match signal_name(*signal) {
                    Some(name) => write!(f, "killed by {name}")?,
                    None => write!(f, "killed by signal {signal}")?,
                }
                if *out_of_memory { f.write_str(", out of memory") } else { Ok(()) }
            }
            WorkEnd::Failed { reason } => f.write_str(reason),
        }
    }
}

/// How one replica of a run ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReplicaEnd {
    /// Index of the replica.
    pub replica: u32,
    /// Its node.
    pub node: NodeId,
    /// When, as its agent counts it.
    pub at: Timestamp,
    /// How.
    pub end: WorkEnd,
}

/// What follows from the ends of a lease's replicas.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "verdict", rename_all = "snake_case")]
pub enum Verdict {
    /// All did what they should.
    Succeeded,
    /// One did not, and which and how.
    Failed {
        /// For people.
        reason: String,
    },
    /// All are gone after notice: the lease can end before its deadline.
    Left,
}

/// Signals by the names that jobs and people use, with their Linux numbers.
const SIGNALS: [(&str, i32); 21] = [
    ("SIGHUP", 1),
    ("SIGINT", 2),
    ("SIGQUIT", 3),
    ("SIGILL", 4),
    ("SIGTRAP", 5),
    ("SIGABRT", 6),
    ("SIGBUS", 7),
    ("SIGFPE", 8),
    ("SIGKILL", 9),
    ("SIGUSR1", 10),
    ("SIGSEGV", 11),
    ("SIGUSR2", 12),
    ("SIGPIPE", 13),
    ("SIGALRM", 14),
    ("SIGTERM", 15),
    ("SIGCONT", 18),
    ("SIGTSTP", 20),
    ("SIGURG", 23),
    ("SIGXCPU", 24),
    ("SIGWINCH", 28),
    ("SIGSYS", 31),
];

/// The name of a signal, where it has one that people know.
pub fn signal_name(number: i32) -> Option<&'static str> {
    SIGNALS.iter().find(|(_, known)| *known == number).map(|(name, _)| *name)
}

/// A signal that a workload may ask for as its notice: one that it can catch and that means nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Signal(i32);

/// A name that is no signal a workload may ask for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NoSuchSignal(String);

impl fmt::Display for NoSuchSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not one of {}", self.0, NOTICES.join(", "))
    }
}
impl std::error::Error for NoSuchSignal {}

/// Signals that a workload may ask for.
const NOTICES: [&str; 7] = ["SIGHUP", "SIGINT", "SIGUSR1", "SIGUSR2", "SIGCONT", "SIGURG", "SIGWINCH"];

impl Signal {
    /// Its number.
    pub fn number(self) -> i32 {
        self.0
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        signal_name(self.0).unwrap_or("SIGUSR1")
    }
}

impl FromStr for Signal {
    type Err = NoSuchSignal;
    fn from_str(text: &str) -> Result<Signal, NoSuchSignal> {
        let known = SIGNALS.iter().find(|(name, _)| *name == text && NOTICES.contains(name));
        known.map(|(_, number)| Signal(*number)).ok_or_else(|| NoSuchSignal(text.chars().take(32).collect()))
    }
}

impl TryFrom<String> for Signal {
    type Error = NoSuchSignal;
    fn try_from(text: String) -> Result<Signal, NoSuchSignal> {
        text.parse()
    }
}

impl From<Signal> for String {
    fn from(signal: Signal) -> String {
        signal.name().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_a_signal_that_can_be_caught() {
        assert_eq!("SIGUSR1".parse::<Signal>().map(Signal::number), Ok(10));
        for other in ["SIGKILL", "SIGTERM", "USR1", "10", ""] {
            assert!(other.parse::<Signal>().is_err(), "{other}");
        }
    }

    #[test]
    fn an_end_reads_as_people_say_it() {
        assert_eq!(WorkEnd::Killed { signal: 9, out_of_memory: true }.to_string(), "killed by SIGKILL, out of memory");
        assert_eq!(WorkEnd::Killed { signal: 64, out_of_memory: false }.to_string(), "killed by signal 64");
        assert_eq!(
            serde_json::to_string(&Restart::OnFailure { times: 3 }).expect("text"),
            r#"{"on_failure":{"times":3}}"#
        );
    }
}
