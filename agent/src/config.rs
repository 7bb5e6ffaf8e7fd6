//! Configuration: the embedded default, then a file, then the environment, then flags. One struct takes all four, so there
//! is one list of keys; a key nobody knows is an error that names it and where it stands.

use crate::host;
use anyhow::{Context, bail, ensure};
use chiptide_api::ClientTls;
use chiptide_model::Millis;
use clap::{Args, Parser, ValueEnum};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// The embedded default, with a comment for every key.
pub const DEFAULT: &str = include_str!("default.toml");
/// Read when no file is named and this one is there.
const USUAL_FILE: &str = "/etc/chiptide/agent.toml";
const PREFIX: &str = "CHIPTIDE_AGENT_";

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "chiptide-agent", version, about = "Reports a node's chips, carries leases, proves chips vacant")]
pub struct CommandLine {
    /// Configuration file (TOML) [default: /etc/chiptide/agent.toml, if it is there]
    #[arg(long, env = "CHIPTIDE_AGENT_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print the configuration in force and exit
    #[arg(long)]
    pub print_config: bool,
    /// Print one reading of the chips as JSON and exit
    #[arg(long, conflicts_with = "watch")]
    pub once: bool,
    /// Print every reading as one line of JSON until interrupted
    #[arg(long)]
    pub watch: bool,
    /// The keys of the configuration.
    #[command(flatten)]
    pub given: Given,
}

/// The keys, as far as one place gives them.
#[derive(Clone, Debug, Default, Args, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Given {
    /// Where the daemon answers; several, separated by commas, are asked in turn
    #[arg(long, env = "CHIPTIDE_AGENT_DAEMON", value_name = "URL")]
    daemon: Option<String>,
    /// Bearer token; better given in a file
    #[arg(long, env = "CHIPTIDE_AGENT_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// File that holds the bearer token
    #[arg(long, env = "CHIPTIDE_AGENT_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// What lets this agent in, once (`chiptide node join-token`); better given in a file
    #[arg(long, env = "CHIPTIDE_AGENT_JOIN_TOKEN", hide_env_values = true)]
    join_token: Option<String>,
    /// File that holds the join token
    #[arg(long, env = "CHIPTIDE_AGENT_JOIN_TOKEN_FILE", value_name = "FILE")]
    join_token_file: Option<PathBuf>,
    /// Certificates (PEM) of authorities to trust besides the system's
    #[arg(long, env = "CHIPTIDE_AGENT_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Client certificate (PEM) that names this node, instead of a token
    #[arg(long, env = "CHIPTIDE_AGENT_CERT", value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Its key (PEM)
    #[arg(long, env = "CHIPTIDE_AGENT_KEY", value_name = "FILE")]
    key: Option<PathBuf>,
    /// The node's name [default: the host name]
    #[arg(long, env = "CHIPTIDE_AGENT_NODE")]
    node: Option<String>,
    /// CPU offered to jobs, thousandths of a core [default: what the machine has]
    #[arg(long, env = "CHIPTIDE_AGENT_CPU_MILLI")]
    cpu_milli: Option<u64>,
    /// Memory offered to jobs, MiB [default: what the machine has]
    #[arg(long, env = "CHIPTIDE_AGENT_MEMORY_MIB")]
    memory_mib: Option<u64>,
    /// Where the node stands
    #[arg(long, env = "CHIPTIDE_AGENT_RACK")]
    rack: Option<String>,
    /// Name of the link fabric (an NVLink or HCCS domain) that its chips share with those of other nodes
    #[arg(long, env = "CHIPTIDE_AGENT_LINK_DOMAIN")]
    link_domain: Option<String>,
    /// Labels: name=value,name=value
    #[arg(long, env = "CHIPTIDE_AGENT_LABELS", value_parser = parse_labels)]
    labels: Option<BTreeMap<String, String>>,
    /// Where the agent keeps what must outlive it; one agent a directory [default: $STATE_DIRECTORY,
    /// /var/lib/chiptide-agent, or ~/.local/state/chiptide-agent of a user]
    #[arg(long, env = "CHIPTIDE_AGENT_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// User to run workloads as; an agent that is root runs none without it [default: the agent's own user]
    #[arg(long, env = "CHIPTIDE_AGENT_WORKLOAD_USER", value_name = "NAME")]
    workload_user: Option<String>,
    /// Users that jobs may name to run as, besides: name,name; none of the system's own
    #[arg(long, env = "CHIPTIDE_AGENT_WORKLOAD_USERS", value_name = "NAMES", value_delimiter = ',')]
    workload_users: Option<Vec<String>>,
    /// The cgroup that holds those of workloads [default: chiptide in the machine's cgroup2 hierarchy]
    #[arg(long, env = "CHIPTIDE_AGENT_CGROUP_ROOT", value_name = "DIR")]
    cgroup_root: Option<PathBuf>,
    /// Run workloads in process groups where no cgroups can be had
    #[arg(long, env = "CHIPTIDE_AGENT_PROCESS_GROUPS", num_args = 0..=1, default_missing_value = "true")]
    process_groups: Option<bool>,
    /// From SIGTERM to the kill
    #[arg(long, env = "CHIPTIDE_AGENT_KILL_AFTER", value_name = "DURATION")]
    kill_after: Option<Millis>,
    /// From the kill until what does not die is complained of
    #[arg(long, env = "CHIPTIDE_AGENT_VERIFY_FOR", value_name = "DURATION")]
    verify_for: Option<Millis>,
    /// How long a workload that failed rests before its first restart; each later one takes twice as long, up to a minute
    #[arg(long, env = "CHIPTIDE_AGENT_RESTART_AFTER", value_name = "DURATION")]
    restart_after: Option<Millis>,
    /// How much of a workload's stdout is kept, and as much of its stderr, MiB
    #[arg(long, env = "CHIPTIDE_AGENT_OUTPUT_MAX_MIB")]
    output_max_mib: Option<u64>,
    /// NVIDIA's management library
    #[arg(long, env = "CHIPTIDE_AGENT_NVML_LIBRARY", value_name = "FILE")]
    nvml_library: Option<PathBuf>,
    /// Run although there is no driver
    #[arg(long, env = "CHIPTIDE_AGENT_ALLOW_NO_CHIPS", num_args = 0..=1, default_missing_value = "true")]
    allow_no_chips: Option<bool>,
    /// The kernel's log, read for XIDs; /dev/null for none
    #[arg(long, env = "CHIPTIDE_AGENT_KMSG", value_name = "FILE")]
    kmsg: Option<PathBuf>,
    /// Table of XIDs that replaces rows of the built-in one
    #[arg(long, env = "CHIPTIDE_AGENT_XID_TABLE", value_name = "FILE")]
    xid_table: Option<PathBuf>,
    /// What to do about processes that no live lease accounts for
    #[arg(long, env = "CHIPTIDE_AGENT_FOREIGN_PROCESSES")]
    foreign_processes: Option<ForeignPolicy>,
    /// Whether workloads are kept from the device nodes of chips that are not theirs
    #[arg(long, env = "CHIPTIDE_AGENT_DEVICE_LIMITS")]
    device_limits: Option<DevicePolicy>,
    /// What ends a fault: class=readings/time,class=readings/time
    #[arg(long, env = "CHIPTIDE_AGENT_CLEAN", value_parser = parse_labels)]
    clean: Option<BTreeMap<String, String>>,
    /// How often to look at the chips
    #[arg(long, env = "CHIPTIDE_AGENT_SAMPLE_EVERY", value_name = "DURATION")]
    sample_every: Option<Millis>,
    /// How long a chip may take to answer
    #[arg(long, env = "CHIPTIDE_AGENT_READ_DEADLINE", value_name = "DURATION")]
    read_deadline: Option<Millis>,
    /// How often to report [default: as the daemon asks]
    #[arg(long, env = "CHIPTIDE_AGENT_REPORT_EVERY", value_name = "DURATION")]
    report_every: Option<Millis>,
    /// How to write logs
    #[arg(long, env = "CHIPTIDE_AGENT_LOG_FORMAT")]
    log_format: Option<LogFormat>,
}

/// How logs are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// What is done about processes that no live lease accounts for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ForeignPolicy {
    /// They are named, and their chip is not granted while they are there.
    Report,
    /// They are told to go, too.
    Evict,
}

/// Whether workloads are kept from the device nodes of chips that are not theirs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DevicePolicy {
    /// Not.
    Off,
    /// Where the kernel lets this agent, and from those chips whose node is known.
    Prefer,
    /// From all of them, or nothing is run.
    Require,
}

impl DevicePolicy {
    fn word(self) -> &'static str {
        match self {
            DevicePolicy::Off => "off",
            DevicePolicy::Prefer => "prefer",
            DevicePolicy::Require => "require",
        }
    }
}

/// The configuration in force.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the daemon answers.
    pub daemon: String,
    /// The node's name.
    pub node: String,
    /// CPU offered to jobs, thousandths of a core.
    pub cpu_milli: u64,
    /// Memory offered to jobs, MiB.
    pub memory_mib: u64,
    /// The rack.
    pub rack: Option<String>,
    /// The link fabric shared with other nodes.
    pub link_domain: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// What must outlive the agent.
    pub state_dir: PathBuf,
    /// Who runs workloads.
    pub workload_user: Option<String>,
    /// Whom else jobs may name to run as.
    pub workload_users: Vec<String>,
    /// The cgroup that holds those of workloads.
    pub cgroup_root: Option<PathBuf>,
    /// Whether process groups will do.
    pub process_groups: bool,
    /// From SIGTERM to the kill.
    pub kill_after: Millis,
    /// From the kill until what does not die is complained of.
    pub verify_for: Millis,
    /// How long a workload that failed rests before its first restart.
    pub restart_after: Millis,
    /// How much output of each kind is kept of a workload, MiB.
    pub output_max_mib: u64,
    /// NVIDIA's management library.
    pub nvml_library: Option<PathBuf>,
    /// Whether to run without a driver.
    pub allow_no_chips: bool,
    /// The kernel's log; none where it is empty.
    pub kmsg: PathBuf,
    /// Table of XIDs that replaces rows of the built-in one.
    pub xid_table: Option<PathBuf>,
    /// What to do about foreign processes.
    pub foreign_processes: ForeignPolicy,
    /// Whether workloads are kept from the chips of others.
    pub device_limits: DevicePolicy,
    /// What ends a fault, by class, where that is not the default.
    pub clean: BTreeMap<String, String>,
    /// How often to look at the chips.
    pub sample_every: Millis,
    /// How long a chip may take to answer.
    pub read_deadline: Millis,
    /// How often to report; as the daemon asks when absent.
    pub report_every: Option<Millis>,
    /// How logs are written.
    pub log_format: LogFormat,
    token: Option<String>,
    token_file: Option<PathBuf>,
    join_token: Option<String>,
    join_token_file: Option<PathBuf>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl Given {
    /// What `file` says, all of it checked.
    fn from_toml(text: &str, file: &str) -> anyhow::Result<Given> {
        toml::from_str(text).with_context(|| format!("read {file}"))
    }

    /// This, completed by what `below` gives.
    fn or(self, below: Given) -> Given {
        Given {
            daemon: self.daemon.or(below.daemon),
            // A token and its file are one choice: the upper place makes it.
            token_file: if self.token.is_some() { None } else { self.token_file.clone().or(below.token_file) },
            token: if self.token_file.is_some() { self.token } else { self.token.or(below.token) },
            join_token_file: if self.join_token.is_some() {
                None
            } else {
                self.join_token_file.clone().or(below.join_token_file)
            },
            join_token: if self.join_token_file.is_some() {
                self.join_token
            } else {
                self.join_token.or(below.join_token)
            },
            ca: self.ca.or(below.ca),
            cert: self.cert.or(below.cert),
            key: self.key.or(below.key),
            node: self.node.or(below.node),
            cpu_milli: self.cpu_milli.or(below.cpu_milli),
            memory_mib: self.memory_mib.or(below.memory_mib),
            rack: self.rack.or(below.rack),
            link_domain: self.link_domain.or(below.link_domain),
            labels: self.labels.or(below.labels),
            state_dir: self.state_dir.or(below.state_dir),
            workload_user: self.workload_user.or(below.workload_user),
            workload_users: self.workload_users.or(below.workload_users),
            cgroup_root: self.cgroup_root.or(below.cgroup_root),
            process_groups: self.process_groups.or(below.process_groups),
            kill_after: self.kill_after.or(below.kill_after),
            verify_for: self.verify_for.or(below.verify_for),
            restart_after: self.restart_after.or(below.restart_after),
            output_max_mib: self.output_max_mib.or(below.output_max_mib),
            nvml_library: self.nvml_library.or(below.nvml_library),
            allow_no_chips: self.allow_no_chips.or(below.allow_no_chips),
            kmsg: self.kmsg.or(below.kmsg),
            xid_table: self.xid_table.or(below.xid_table),
            foreign_processes: self.foreign_processes.or(below.foreign_processes),
            device_limits: self.device_limits.or(below.device_limits),
            clean: self.clean.or(below.clean),
            sample_every: self.sample_every.or(below.sample_every),
            read_deadline: self.read_deadline.or(below.read_deadline),
            report_every: self.report_every.or(below.report_every),
            log_format: self.log_format.or(below.log_format),
        }
    }
}

impl Config {
    /// The configuration in force for this command line and environment.
    pub fn load(command: &CommandLine) -> anyhow::Result<Config> {
        refuse_unknown_variables(std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()))?;
        let file = match &command.config {
            Some(file) => Some(file.as_path()),
            None => Some(Path::new(USUAL_FILE)).filter(|file| file.exists()),
        };
        let from_file = match file {
            Some(file) => {
                let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
                Given::from_toml(&text, &file.display().to_string())?
            }
            None => Given::default(),
        };
        Config::of(command.given.clone().or(from_file).or(Given::from_toml(DEFAULT, "the built-in default")?))
    }

    fn of(given: Given) -> anyhow::Result<Config> {
        let key = |key: &'static str| move || format!("{key} is not set");
        let node = match given.node {
            Some(node) => node,
            None => host::name(),
        };
        ensure!(!node.is_empty(), "node is not set, and this machine has no name");
        let (sample_every, read_deadline) =
            (given.sample_every.with_context(key("sample_every"))?, given.read_deadline);
        ensure!(sample_every.0 > 0, "sample_every must be more than 0s");
        Ok(Config {
            daemon: given.daemon.with_context(key("daemon"))?,
            node,
            cpu_milli: given.cpu_milli.unwrap_or_else(host::cpu_milli),
            memory_mib: given.memory_mib.unwrap_or_else(host::memory_mib),
            rack: given.rack,
            link_domain: given.link_domain,
            labels: given.labels.unwrap_or_default(),
            state_dir: given.state_dir.map_or_else(host::state_dir, Ok)?,
            workload_user: given.workload_user,
            workload_users: given.workload_users.unwrap_or_default(),
            cgroup_root: given.cgroup_root,
            process_groups: given.process_groups.unwrap_or(false),
            kill_after: given.kill_after.with_context(key("kill_after"))?,
            verify_for: given.verify_for.with_context(key("verify_for"))?,
            restart_after: given.restart_after.with_context(key("restart_after"))?,
            output_max_mib: given.output_max_mib.with_context(key("output_max_mib"))?,
            nvml_library: given.nvml_library,
            allow_no_chips: given.allow_no_chips.unwrap_or(false),
            kmsg: given.kmsg.with_context(key("kmsg"))?,
            xid_table: given.xid_table,
            foreign_processes: given.foreign_processes.unwrap_or(ForeignPolicy::Report),
            device_limits: given.device_limits.unwrap_or(DevicePolicy::Prefer),
            clean: given.clean.unwrap_or_default(),
            sample_every,
            read_deadline: read_deadline.with_context(key("read_deadline"))?,
            report_every: given.report_every,
            log_format: given.log_format.unwrap_or(LogFormat::Human),
            token: given.token,
            token_file: given.token_file,
            join_token: given.join_token,
            join_token_file: given.join_token_file,
            ca: given.ca,
            cert: given.cert,
            key: given.key,
        })
    }

    /// The bearer token, if one is given rather than joined for.
    pub fn token(&self) -> anyhow::Result<Option<String>> {
        secret("the token", self.token.as_deref(), self.token_file.as_deref())
    }

    /// The join token, if one is given.
    pub fn join_token(&self) -> anyhow::Result<Option<String>> {
        // One that was read from a file and used may be gone; the credential is what counts then.
        let file = self.join_token_file.as_deref().filter(|file| file.exists());
        secret("the join token", self.join_token.as_deref(), file)
    }

    /// What a daemon with TLS takes.
    pub fn tls(&self) -> anyhow::Result<ClientTls> {
        let read = |file: &PathBuf| fs::read(file).with_context(|| format!("read {}", file.display()));
        let identity = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some([read(cert)?, read(key)?].concat()),
            (None, None) => None,
            _ => bail!("cert and key are given together or not at all"),
        };
        Ok(ClientTls { ca: self.ca.as_ref().map(read).transpose()?, identity })
    }

    /// The configuration as a file would say it; the token itself stays hidden.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        let mut line = |key: &str, value: String| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{key} = {value}");
        };
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        line("daemon", quoted(&self.daemon));
        if self.token.is_some() {
            line("token", quoted("(hidden)"));
        }
        if let Some(file) = &self.token_file {
            line("token_file", quoted(&file.display().to_string()));
        }
        if self.join_token.is_some() {
            line("join_token", quoted("(hidden)"));
        }
        let files =
            [("join_token_file", &self.join_token_file), ("ca", &self.ca), ("cert", &self.cert), ("key", &self.key)];
        for (key, file) in files {
            if let Some(file) = file {
                line(key, quoted(&file.display().to_string()));
            }
        }
        line("node", quoted(&self.node));
        line("cpu_milli", self.cpu_milli.to_string());
        line("memory_mib", self.memory_mib.to_string());
        if let Some(rack) = &self.rack {
            line("rack", quoted(rack));
        }
        if let Some(domain) = &self.link_domain {
            line("link_domain", quoted(domain));
        }
        let table = |pairs: &BTreeMap<String, String>| {
            let pairs = pairs.iter().map(|(name, value)| format!("{} = {}", quoted(name), quoted(value)));
            format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
        };
        line("labels", table(&self.labels));
        line("state_dir", quoted(&self.state_dir.display().to_string()));
        if let Some(user) = &self.workload_user {
            line("workload_user", quoted(user));
        }
        let users: Vec<String> = self.workload_users.iter().map(|user| quoted(user)).collect();
        line("workload_users", format!("[{}]", users.join(", ")));
        if let Some(root) = &self.cgroup_root {
            line("cgroup_root", quoted(&root.display().to_string()));
        }
        line("process_groups", self.process_groups.to_string());
        line("kill_after", quoted(&self.kill_after.to_string()));
        line("verify_for", quoted(&self.verify_for.to_string()));
        line("restart_after", quoted(&self.restart_after.to_string()));
        line("output_max_mib", self.output_max_mib.to_string());
        if let Some(library) = &self.nvml_library {
            line("nvml_library", quoted(&library.display().to_string()));
        }
        line("allow_no_chips", self.allow_no_chips.to_string());
        line("kmsg", quoted(&self.kmsg.display().to_string()));
        if let Some(table) = &self.xid_table {
            line("xid_table", quoted(&table.display().to_string()));
        }
        let evict = self.foreign_processes == ForeignPolicy::Evict;
        line("foreign_processes", quoted(if evict { "evict" } else { "report" }));
        line("device_limits", quoted(self.device_limits.word()));
        line("clean", table(&self.clean));
        line("sample_every", quoted(&self.sample_every.to_string()));
        line("read_deadline", quoted(&self.read_deadline.to_string()));
        if let Some(every) = self.report_every {
            line("report_every", quoted(&every.to_string()));
        }
        line("log_format", quoted(if self.log_format == LogFormat::Json { "json" } else { "human" }));
        text
    }
}

/// A secret that is given, or is in a file.
fn secret(what: &str, given: Option<&str>, file: Option<&Path>) -> anyhow::Result<Option<String>> {
    let secret = match (given, file) {
        (Some(secret), _) => secret.to_owned(),
        (None, Some(file)) => {
            fs::read_to_string(file).with_context(|| format!("read {what} from {}", file.display()))?
        }
        (None, None) => return Ok(None),
    };
    ensure!(!secret.trim().is_empty(), "{what} is empty");
    Ok(Some(secret.trim().to_owned()))
}

/// Refuses variables with our prefix that no key answers to.
fn refuse_unknown_variables(names: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let command = <CommandLine as clap::CommandFactory>::command();
    let known: Vec<&str> = command.get_arguments().filter_map(|arg| arg.get_env()?.to_str()).collect();
    for name in names.filter(|name| name.starts_with(PREFIX)) {
        ensure!(known.contains(&name.as_str()), "unknown key in the environment: {name}");
    }
    Ok(())
}

fn parse_labels(text: &str) -> Result<BTreeMap<String, String>, String> {
    let pair = |pair: &str| match pair.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{pair:?} is not name=value")),
    };
    text.split(',').filter(|pair| !pair.is_empty()).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(file: &str) -> anyhow::Result<Config> {
        let given = Given::from_toml(file, "agent.toml")?;
        Config::of(given.or(Given::from_toml(DEFAULT, "the built-in default")?))
    }

    #[test]
    fn the_default_is_complete_but_for_the_token() {
        let config = from("").expect("valid");
        assert_eq!((config.daemon.as_str(), config.sample_every), ("http://127.0.0.1:7070", Millis::from_secs(2)));
        assert!(config.cpu_milli > 0 && config.memory_mib > 0 && !config.node.is_empty());
        assert_eq!(config.token().expect("readable"), None);
    }

    #[test]
    fn an_unknown_key_is_named_with_its_file() {
        let error = format!("{:#}", from("daemn = \"x\"").expect_err("a typing error"));
        assert!(error.contains("daemn") && error.contains("agent.toml"), "{error}");
        let error =
            refuse_unknown_variables(["CHIPTIDE_AGENT_DAEMN".to_owned()].into_iter()).expect_err("a typing error");
        assert!(error.to_string().contains("CHIPTIDE_AGENT_DAEMN"));
        refuse_unknown_variables(["CHIPTIDE_AGENT_DAEMON".to_owned(), "PATH".to_owned()].into_iter()).expect("known");
    }

    #[test]
    fn a_token_above_hides_a_token_file_below() {
        let below = Given { token_file: Some("/nowhere".into()), ..Given::default() };
        let above = Given { token: Some("secret".into()), ..Given::default() };
        let defaults = Given::from_toml(DEFAULT, "default").expect("valid");
        let config = Config::of(above.or(below).or(defaults)).expect("valid");
        assert_eq!(config.token().expect("a token").as_deref(), Some("secret"));
        assert!(!config.to_toml().contains("secret"));
    }

    #[test]
    fn what_is_printed_can_be_read_back() {
        let config = from("rack = \"r\\\"1\"\nlabels = { zone = \"a\" }\nreport_every = \"5s\"").expect("valid");
        let again = from(&config.to_toml()).expect("valid");
        assert_eq!(again.to_toml(), config.to_toml());
        assert_eq!((again.rack.as_deref(), again.labels["zone"].as_str()), (Some("r\"1"), "a"));
    }
}
