//! The command line: what can be said, and nothing of what it does.

use chiptide_api::access::Role;
use chiptide_model::Millis;
use clap::{Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::path::PathBuf;
use uuid::Uuid;

/// Leases accelerator chips between training and inference.
///
/// Exit codes: 0 done, 1 error, 2 usage, 3 not found, 4 refused.
#[derive(Debug, Parser)]
#[command(name = "chiptide", version, disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) daemon: Daemon,
    /// How to print
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub(crate) output: Format,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which daemon, and by what right.
#[derive(Debug, clap::Args)]
pub(crate) struct Daemon {
    /// The daemon's address; several, separated by commas, are tried in turn
    #[arg(long, global = true, env = "CHIPTIDE_URL", default_value = "http://127.0.0.1:7070")]
    pub(crate) url: String,
    /// Bearer token; else the one in CHIPTIDE_TOKEN_FILE, else the one that `chiptide up` wrote
    #[arg(long, global = true, env = "CHIPTIDE_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Certificates (PEM) of authorities to trust besides the system's
    #[arg(long, global = true, env = "CHIPTIDE_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Client certificate (PEM)
    #[arg(long, global = true, env = "CHIPTIDE_CERT", value_name = "FILE", requires = "key")]
    pub(crate) cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, global = true, env = "CHIPTIDE_KEY", value_name = "FILE", requires = "cert")]
    pub(crate) key: Option<PathBuf>,
}

/// How to print.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// As the API says it.
    Json,
    /// The same as YAML.
    Yaml,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Submit jobs, see where they stand, end them
    #[command(subcommand)]
    Job(Job),
    /// Explain a job: what it waits for, who holds it, what would help, when it may start, why it was evicted
    Explain {
        /// The job
        job: Uuid,
    },
    /// See who had how much chip time, and what became of it
    Usage(Usage),
    /// See what happened, and with --follow what happens
    Events(Events),
    /// See queues: what each may hold, is owed, holds, borrows and lends
    #[command(subcommand)]
    Queue(Queue),
    /// Read the policy, try a change, make it, go back
    #[command(subcommand)]
    Policy(Policy),
    /// See, renew and give back leases
    #[command(subcommand)]
    Lease(Lease),
    /// See nodes, take them out of service and back
    #[command(subcommand)]
    Node(Node),
    /// See chips
    #[command(subcommand)]
    Chip(Chip),
    /// Make, list and revoke tokens
    #[command(subcommand)]
    Token(Token),
    /// See who did what, or was refused, newest first
    Audit(Audit),
    /// Show who you are to the daemon, and what you may do
    Whoami,
    /// Run a cluster on this machine until Ctrl-C
    Up(Up),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the version
    Version,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Job {
    /// Submit the jobs of a file and wait until they have chips
    Submit(Submit),
    /// List jobs
    List(JobList),
    /// Show everything about a job: why it waits, what is promised to it, where it runs
    Get {
        /// The job
        id: Uuid,
    },
    /// Cancel a job
    Cancel {
        /// The job
        id: Uuid,
    },
    /// Report a job done; its chips are given back
    Done {
        /// The job
        id: Uuid,
        /// It failed, for this reason
        #[arg(long, value_name = "REASON")]
        failed: Option<String>,
    },
    /// Print what a replica has written, as its node keeps it
    Logs(Logs),
    /// Print a line for every change of a job until it ends
    Watch {
        /// The job
        id: Uuid,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Submit {
    /// YAML or JSON: one job, a list, or several YAML documents; `-` reads standard input
    pub(crate) file: PathBuf,
    /// Submit nothing: print what the jobs would meet, whom they would evict, or why they would wait
    #[arg(long, conflicts_with_all = ["no_wait", "timeout", "idempotency_key", "parsable"])]
    pub(crate) dry_run: bool,
    /// Return once the jobs are accepted
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// Give up waiting after this long; the jobs stay submitted
    #[arg(long, default_value = "5m", conflicts_with = "no_wait")]
    pub(crate) timeout: Millis,
    /// A repeated submit with this key has no further effect; default: random
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    /// Print the ids alone, one a line
    #[arg(long)]
    pub(crate) parsable: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Usage {
    /// What to tell apart: hour, day, queue, job, class, label:KEY
    #[arg(long, value_delimiter = ',', default_value = "queue")]
    pub(crate) by: Vec<String>,
    /// How far back, by whole hours
    #[arg(long, default_value = "7d")]
    pub(crate) since: Millis,
    /// Only this queue
    #[arg(long)]
    pub(crate) queue: Option<String>,
    /// Only this device class
    #[arg(long)]
    pub(crate) device_class: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Events {
    /// Go on, for as long as it is read
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Start so many events before the end of the log
    #[arg(long, value_name = "N", default_value_t = 50, conflicts_with = "after")]
    pub(crate) last: u64,
    /// Start after this position; 0 is the beginning
    #[arg(long, value_name = "POSITION")]
    pub(crate) after: Option<u64>,
    /// Only of these jobs
    #[arg(long, value_delimiter = ',')]
    pub(crate) job: Vec<String>,
    /// Only of these queues
    #[arg(long, value_delimiter = ',')]
    pub(crate) queue: Vec<String>,
    /// Only of these nodes
    #[arg(long, value_delimiter = ',')]
    pub(crate) node: Vec<String>,
    /// Only of these types, e.g. lease_granted,lease_revoked
    #[arg(long = "type", value_delimiter = ',', value_name = "TYPE")]
    pub(crate) kind: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Logs {
    /// The job
    pub(crate) id: Uuid,
    /// The replica
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) rank: u32,
    /// Follow it until the job ends, over restarts and from one attempt to the next
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only the last so many lines, at most 256 KiB
    #[arg(long, value_name = "LINES")]
    pub(crate) tail: Option<u32>,
    /// Standard error instead of standard output
    #[arg(long)]
    pub(crate) stderr: bool,
    /// The output of this attempt, from 1 [default: the newest]
    #[arg(long, value_name = "N", conflicts_with = "follow")]
    pub(crate) attempt: Option<u32>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct JobList {
    /// Only jobs in this state
    #[arg(long)]
    pub(crate) state: Option<String>,
    /// Only jobs of this queue
    #[arg(long)]
    pub(crate) queue: Option<String>,
    /// Only `training` or `inference`
    #[arg(long)]
    pub(crate) kind: Option<String>,
    /// Only jobs of this name
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Only jobs with this label
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) label: Option<String>,
    #[command(flatten)]
    pub(crate) pages: Pages,
}

/// How much of a list.
#[derive(Debug, clap::Args)]
pub(crate) struct Pages {
    /// At most this many
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: usize,
    /// However many there are
    #[arg(long, conflicts_with = "limit")]
    pub(crate) all: bool,
}

impl Pages {
    /// The most items wanted.
    pub(crate) fn max(&self) -> usize {
        if self.all { usize::MAX } else { self.limit }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Lease {
    /// List live leases
    List {
        /// Only leases of this job
        #[arg(long)]
        job: Option<Uuid>,
        /// Only `active` or `revoking`
        #[arg(long)]
        state: Option<String>,
        #[command(flatten)]
        pages: Pages,
    },
    /// Show a lease and where each replica runs
    Get {
        /// The lease
        id: Uuid,
    },
    /// Renew a lease that has a `lease_ttl`
    Renew {
        /// The lease
        id: Uuid,
    },
    /// Give a lease back
    Release {
        /// The lease
        id: Uuid,
        /// Put its job back to pending instead of ending it
        #[arg(long)]
        requeue: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Queue {
    /// List queues
    List,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Policy {
    /// Print the policy in force
    Get {
        /// An earlier version
        #[arg(long, value_name = "N")]
        version: Option<u64>,
        /// The document alone, as YAML that `apply` takes
        #[arg(long)]
        document: bool,
    },
    /// Open the policy in $EDITOR, show what the change would do, ask, and make it
    Edit {
        #[command(flatten)]
        change: PolicyChange,
    },
    /// Print what a document changes of the policy in force
    Diff {
        /// YAML or JSON; `-` reads standard input
        file: PathBuf,
    },
    /// Print what a document would do now: who would be evicted, who would start
    DryRun {
        /// YAML or JSON; `-` reads standard input
        file: PathBuf,
    },
    /// Show what a document would do, ask, and put it in force
    Apply {
        /// YAML or JSON; `-` reads standard input
        file: PathBuf,
        #[command(flatten)]
        change: PolicyChange,
    },
    /// List every version with its author and reason
    History {
        #[command(flatten)]
        pages: Pages,
    },
    /// Put an earlier version in force again, as a new one
    Rollback {
        /// The version
        version: u64,
        /// Why
        #[arg(long)]
        reason: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct PolicyChange {
    /// Why; kept with the version
    #[arg(long)]
    pub(crate) reason: Option<String>,
    /// Do not try it first and do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Node {
    /// List nodes
    List {
        /// Only `up` or `unknown`
        #[arg(long)]
        state: Option<String>,
        #[command(flatten)]
        pages: Pages,
    },
    /// Show a node
    Get {
        /// The node's name
        id: String,
    },
    /// Let nothing more be granted on a node; who is there may finish
    Cordon {
        /// The node's name
        id: String,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// Empty a node: give notice to everyone there
    Drain {
        /// The node's name
        id: String,
        /// Why
        #[arg(long)]
        reason: String,
        /// Holders may stay for so long, if their own grace ends before
        #[arg(long, value_name = "SPAN")]
        within: Option<Millis>,
    },
    /// Give a node back to work
    Uncordon {
        /// The node's name
        id: String,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// Make a join token: with it one new agent comes in, once
    JoinToken {
        /// The only node it is good for, in place of the credentials that node may have
        #[arg(long)]
        node: Option<String>,
        /// After how long it is void [default: 10m]
        #[arg(long, value_name = "DURATION")]
        expires_in: Option<Millis>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Chip {
    /// List chips, who holds them and how busy they are
    List {
        /// Only chips of this node
        #[arg(long)]
        node: Option<String>,
        /// Only chips of this device class
        #[arg(long, value_name = "CLASS")]
        device_class: Option<String>,
        /// Only `free`, `held`, `reclaiming`, `quarantined` or `unknown`
        #[arg(long)]
        state: Option<String>,
        #[command(flatten)]
        pages: Pages,
    },
    /// Show one chip with its faults
    Get {
        /// The chip
        id: String,
    },
    /// Take a chip out of service; who has it may finish
    Quarantine {
        /// The chip
        id: String,
        /// Why
        #[arg(long)]
        reason: String,
    },
    /// Bring a chip back into service
    Release {
        /// The chip
        id: String,
        /// Why
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Audit {
    /// Only calls of this caller: a token's id
    #[arg(long)]
    pub(crate) who: Option<String>,
    /// Only this method and route, e.g. `POST /v1/jobs/{id}/cancel`
    #[arg(long)]
    pub(crate) action: Option<String>,
    /// Only what is about this job, lease, node, chip or token
    #[arg(long)]
    pub(crate) target: Option<String>,
    /// Only `allowed`, `refused` or `failed`
    #[arg(long)]
    pub(crate) outcome: Option<String>,
    /// Only the last so long, e.g. `24h`
    #[arg(long, value_name = "DURATION")]
    pub(crate) since: Option<Millis>,
    #[command(flatten)]
    pub(crate) pages: Pages,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token and print it; its secret is shown this once
    Create {
        /// What it is for
        #[arg(long)]
        name: String,
        /// `admin`, `operator`, `scheduler`, `viewer` or `agent`
        #[arg(long)]
        role: Role,
        /// For a scheduler: a queue it may use, with those below; may be repeated
        #[arg(long = "queue", value_name = "QUEUE")]
        queues: Vec<String>,
        /// For an agent: its node
        #[arg(long)]
        node: Option<String>,
        /// After how long it is void, e.g. `90d` [default: never]
        #[arg(long, value_name = "DURATION")]
        expires_in: Option<Millis>,
    },
    /// List tokens, without their secrets
    List {
        #[command(flatten)]
        pages: Pages,
    },
    /// Revoke a token
    Revoke {
        /// Its id: what stands between `chiptide_` and the secret
        id: String,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Up {
    /// Where everything is kept; default: /var/lib/chiptide for root, else ~/.local/state/chiptide
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Address the daemon listens on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7070")]
    pub(crate) listen: String,
    /// Fake nodes, even where there is a real driver [default: 4, where there is none]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) nodes: Option<u32>,
    /// Fake chips on each fake node
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) chips: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn durations_are_written_as_everywhere() {
        let args = Args::try_parse_from(["chiptide", "job", "submit", "-", "--timeout", "1h30m"]).expect("parsed");
        let Command::Job(Job::Submit(submit)) = args.command else { panic!("a submit") };
        assert_eq!(submit.timeout, Millis::from_secs(5400));
        assert!(Args::try_parse_from(["chiptide", "job", "submit", "-", "--timeout", "soon"]).is_err());
    }
}
