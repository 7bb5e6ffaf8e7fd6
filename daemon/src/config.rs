//! Configuration: embedded defaults ← file ← `CHIPTIDE_*` environment ← flags. A wrong key or value names itself.

use crate::store::Limits;
use anyhow::{Context, bail};
use chiptide_api::access::Role;
use clap::Parser;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The commented defaults.
pub const DEFAULTS: &str = include_str!("default.toml");

/// Leases accelerator chips between training jobs and real-time inference.
#[derive(Debug, Parser)]
#[command(name = "chiptided", version)]
pub struct Flags {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the daemon keeps its own files, and the private Postgres if it runs one.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address to serve on; port 0 picks a free one.
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
    /// Where other daemons on the same database reach this one, e.g. `http://alloc-1.example.com:7070`.
    #[arg(long, value_name = "URL")]
    pub advertise_url: Option<String>,
    /// Postgres 15 or newer; without it a private cluster is run in the data directory.
    #[arg(long, value_name = "URL")]
    pub database_url: Option<String>,
    /// Keep an admin token in this file, made if need be.
    #[arg(long, value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
    /// Put the policy of this file (YAML or JSON) in force.
    #[arg(long, value_name = "FILE")]
    pub policy_file: Option<PathBuf>,
    /// Print the configuration in effect and exit.
    #[arg(long)]
    pub print_config: bool,
}

/// The configuration in effect.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address to serve on.
    pub listen: SocketAddr,
    /// Where other daemons on the same database reach this one; empty means the address it listens on.
    pub advertise_url: String,
    /// The daemon's own files; empty means the platform's default.
    pub data_dir: PathBuf,
    /// Postgres; empty means a private cluster.
    pub database_url: String,
    /// Where to keep an admin token; empty means nowhere: it is printed once.
    pub admin_token_file: PathBuf,
    /// Where the Postgres binaries are; empty means to search.
    pub postgres_bin_dir: PathBuf,
    /// The policy (YAML or JSON) to put in force at start; empty means that the one in force stays.
    pub policy_file: PathBuf,
    /// Most submits that may wait for a round; of everything else, four times as many may.
    pub round_queue: usize,
    /// How many requests of each kind may be under way.
    pub admission: Admission,
    /// Who may come how fast, and what is open.
    pub access: Access,
    /// Whose JSON Web Tokens are taken.
    pub oidc: Oidc,
    /// The certificate of the listener, and whose client certificates are taken.
    pub tls: Tls,
    /// What Postgres is given.
    pub database: Database,
    /// What is logged, and how.
    pub log: Log,
    /// What is expected of agents.
    pub agents: Agents,
}

/// How much may be under way at once, by kind; what is over that is refused.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admission {
    /// Agents' reports.
    pub reports: u32,
    /// Agents' registrations.
    pub registrations: u32,
    /// Agents' long-polls.
    pub polls: u32,
    /// What holders say of leases and jobs.
    pub leases: u32,
    /// New jobs.
    pub submits: u32,
    /// Long-polls of people and programs.
    pub watches: u32,
    /// Those who watch the event log.
    pub event_watches: u32,
    /// Looks.
    pub reads: u32,
    /// Bytes of bodies, MiB; agents have as much again for themselves.
    pub bodies_mib: u32,
    /// Connections.
    pub connections: u32,
    /// How long a client may take to send a request's head, the wait for its next request included.
    #[serde(with = "span")]
    pub head_limit: Duration,
    /// How long a client may take to send a body.
    #[serde(with = "span")]
    pub body_limit: Duration,
}

/// Who may come how fast, and what is open to all.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// Requests of one token a second, on average; 0 for no limit.
    pub requests_per_second: u32,
    /// Requests of one token at once.
    pub burst: u32,
    /// Whether `/metrics` needs no token.
    pub anonymous_metrics: bool,
}

/// An identity provider whose tokens are taken. Without an issuer, none is.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Oidc {
    /// What its tokens say of where they are from, to the letter.
    pub issuer: String,
    /// What its tokens say of whom they are for.
    pub audience: String,
    /// Where its public keys are.
    pub jwks_url: String,
    /// How far its clock and ours may be apart.
    #[serde(with = "span")]
    pub leeway: Duration,
    /// How often its keys may be asked for.
    #[serde(with = "span")]
    pub refresh_at_most_every: Duration,
    /// The claim that has the name of a person.
    pub name_claim: String,
    /// What claims mean here.
    pub map: Vec<OidcMap>,
}

/// Whoever has this value in this claim has this role.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcMap {
    /// The claim; a text, or a list of them.
    pub claim: String,
    /// Its value.
    pub value: String,
    /// The role.
    pub role: Role,
    /// Queues of a scheduler.
    #[serde(default)]
    pub queues: Vec<String>,
    /// The claim that has more of them.
    #[serde(default)]
    pub queues_claim: String,
}

/// TLS of the listener. Without a certificate, none.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The certificate and those between it and its root (PEM).
    pub cert: PathBuf,
    /// Its key (PEM).
    pub key: PathBuf,
    /// The authority whose client certificates speak for agents (PEM).
    pub client_ca: PathBuf,
    /// The authority by which other daemons' certificates are taken, besides the system's (PEM).
    pub ca: PathBuf,
}

impl Tls {
    /// Whether the listener speaks TLS.
    pub fn is_on(&self) -> bool {
        !self.cert.as_os_str().is_empty()
    }
}

/// How long Postgres is given, and how many connections it gives us.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// For the commit of one round.
    #[serde(with = "span")]
    pub round_limit: Duration,
    /// For what one request reads.
    #[serde(with = "span")]
    pub read_limit: Duration,
    /// For a connection.
    #[serde(with = "span")]
    pub connect_limit: Duration,
    /// For somebody else's lock.
    #[serde(with = "span")]
    pub lock_limit: Duration,
    /// Connections for reads.
    pub readers: u32,
}

impl Database {
    /// The same, as the store takes it.
    pub fn limits(&self) -> Limits {
        Limits {
            round: self.round_limit,
            read: self.read_limit,
            connect: self.connect_limit,
            lock: self.lock_limit,
            readers: self.readers,
        }
    }
}

/// Logging.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// A tracing filter.
    pub filter: String,
    /// For people or for machines.
    pub format: LogFormat,
}

/// How log lines are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Readable lines.
    Human,
    /// One JSON object a line.
    Json,
}

/// What is expected of agents.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agents {
    /// How often they report.
    #[serde(with = "span")]
    pub report_every: Duration,
    /// After how long without a report a node is silent and its chips unknown.
    #[serde(with = "span")]
    pub silent_after: Duration,
}

/// Durations are written `"2s"`.
mod span {
    use chiptide_model::Millis;
    use serde::{Deserialize, Deserializer, Serializer};
    use std::time::Duration;

    pub(super) fn serialize<S: Serializer>(span: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&Millis(span.as_millis() as u64))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        Millis::deserialize(d).map(|span| Duration::from_millis(span.0))
    }
}

impl Config {
    /// Puts the layers together.
    pub fn load(flags: &Flags) -> anyhow::Result<Config> {
        let mut builder =
            config::Config::builder().add_source(config::File::from_str(DEFAULTS, config::FileFormat::Toml));
        if let Some(file) = &flags.config {
            let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
            check_layer(&text).with_context(|| format!("in {}", file.display()))?;
            builder = builder.add_source(config::File::from_str(&text, config::FileFormat::Toml));
        }
        let ours =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let ours = ours.filter(|(name, _)| !belongs_to_others(name)).collect();
        builder = builder.add_source(
            config::Environment::with_prefix("CHIPTIDE")
                .prefix_separator("_")
                .separator("__")
                .try_parsing(true)
                .source(Some(ours)),
        );
        let text = |path: &Path| path.to_string_lossy().into_owned();
        builder = builder
            .set_override_option("listen", flags.listen.map(|listen| listen.to_string()))?
            .set_override_option("advertise_url", flags.advertise_url.clone())?
            .set_override_option("data_dir", flags.data_dir.as_deref().map(text))?
            .set_override_option("database_url", flags.database_url.clone())?
            .set_override_option("admin_token_file", flags.admin_token_file.as_deref().map(text))?
            .set_override_option("policy_file", flags.policy_file.as_deref().map(text))?;
        let merged = builder.build().context("read the configuration")?;
        let config: Config = serde_path_to_error::deserialize(merged)
            .map_err(|error| anyhow::anyhow!("configuration key {:?}: {}", error.path().to_string(), error.inner()))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> anyhow::Result<()> {
        if self.agents.report_every < Duration::from_millis(100) {
            bail!("configuration key \"agents.report_every\": must be at least 100ms");
        }
        if self.agents.silent_after < self.agents.report_every * 2 {
            bail!("configuration key \"agents.silent_after\": must be at least twice agents.report_every");
        }
        if self.round_queue == 0 {
            bail!("configuration key \"round_queue\": must be at least 1");
        }
        if !self.advertise_url.is_empty() {
            let url = reqwest::Url::parse(&self.advertise_url).context("configuration key \"advertise_url\"")?;
            if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
                bail!("configuration key \"advertise_url\": must be an http or https URL");
            }
        }
        if self.admission.bodies_mib < 8 || self.admission.bodies_mib > 65_536 {
            bail!("configuration key \"admission.bodies_mib\": must be between 8 and 65536");
        }
        self.check_oidc()?;
        if self.tls.is_on() == self.tls.key.as_os_str().is_empty() {
            bail!("configuration key \"tls.key\": tls.cert and tls.key are given together or not at all");
        }
        if !self.tls.client_ca.as_os_str().is_empty() && !self.tls.is_on() {
            bail!("configuration key \"tls.client_ca\": client certificates need tls.cert and tls.key");
        }
        let database = &self.database;
        for (key, span) in [
            ("round_limit", database.round_limit),
            ("read_limit", database.read_limit),
            ("connect_limit", database.connect_limit),
            ("lock_limit", database.lock_limit),
        ] {
            if span < Duration::from_millis(100) {
                bail!("configuration key \"database.{key}\": must be at least 100ms");
            }
        }
        if database.readers == 0 {
            bail!("configuration key \"database.readers\": must be at least 1");
        }
        Ok(())
    }

    fn check_oidc(&self) -> anyhow::Result<()> {
        let oidc = &self.oidc;
        if oidc.issuer.is_empty() {
            return Ok(());
        }
        if oidc.audience.is_empty() {
            bail!("configuration key \"oidc.audience\": whom the issuer's tokens must be for");
        }
        let url = reqwest::Url::parse(&oidc.jwks_url).context("configuration key \"oidc.jwks_url\"")?;
        let is_local = url.host_str().is_some_and(|host| matches!(host, "localhost" | "127.0.0.1" | "[::1]"));
        if url.scheme() != "https" && !is_local {
            bail!("configuration key \"oidc.jwks_url\": must be an https URL");
        }
        if oidc.leeway > Duration::from_secs(600) {
            bail!("configuration key \"oidc.leeway\": at most 10m");
        }
        if let Some(index) = oidc.map.iter().position(|line| line.role == Role::Agent) {
            bail!("configuration key \"oidc.map[{index}].role\": agents have credentials of their own");
        }
        Ok(())
    }

    /// Where other daemons reach this one, which listens on `address`. Of one that listens everywhere that is the machine's
    /// name.
    pub fn advertised(&self, address: SocketAddr) -> String {
        if !self.advertise_url.is_empty() {
            return self.advertise_url.trim_end_matches('/').to_owned();
        }
        let scheme = if self.tls.is_on() { "https" } else { "http" };
        if address.ip().is_unspecified() {
            return format!("{scheme}://{}:{}", rustix::system::uname().nodename().to_string_lossy(), address.port());
        }
        format!("{scheme}://{address}")
    }

    /// The data directory in effect.
    pub fn data_dir(&self) -> anyhow::Result<PathBuf> {
        if !self.data_dir.as_os_str().is_empty() {
            return std::path::absolute(&self.data_dir).context("resolve data_dir");
        }
        if rustix::process::geteuid().is_root() {
            return Ok("/var/lib/chiptide".into());
        }
        let home = std::env::var_os("XDG_STATE_HOME")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state")));
        Ok(home.context("neither data_dir nor HOME is set")?.join("chiptide"))
    }
}

/// Variables of the command line and the agent, which share our prefix.
fn belongs_to_others(name: &str) -> bool {
    matches!(
        name,
        "CHIPTIDE_URL"
            | "CHIPTIDE_CA"
            | "CHIPTIDE_CERT"
            | "CHIPTIDE_KEY"
            | "CHIPTIDE_TOKEN"
            | "CHIPTIDE_TOKEN_FILE"
            | "CHIPTIDE_FAKE_NVML"
    ) || name.starts_with("CHIPTIDE_AGENT_")
}

/// Finds a key in a file that no layer knows, so that the message can name the file.
fn check_layer(text: &str) -> anyhow::Result<()> {
    let layer: toml::Table = toml::from_str(text)?;
    let known: toml::Table = toml::from_str(DEFAULTS).expect("the embedded defaults are TOML, a test reads them");
    unknown_key(&layer, &known, "").map_or(Ok(()), |key| bail!("unknown configuration key {key:?}"))
}

fn unknown_key(layer: &toml::Table, known: &toml::Table, prefix: &str) -> Option<String> {
    layer.iter().find_map(|(key, value)| match (value, known.get(key)) {
        (_, None) => Some(format!("{prefix}{key}")),
        (toml::Value::Table(layer), Some(toml::Value::Table(known))) => {
            unknown_key(layer, known, &format!("{prefix}{key}."))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str) -> anyhow::Result<Config> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("chiptided.toml");
        std::fs::write(&path, file).expect("written");
        Config::load(&Flags::parse_from(["chiptided", "--config", path.to_str().expect("UTF-8")]))
    }

    #[test]
    fn a_file_overrides_the_defaults_and_flags_the_file() {
        let config = load("listen = \"127.0.0.1:9\"\n[agents]\nreport_every = \"1s\"").expect("valid");
        assert_eq!(config.agents.report_every, Duration::from_secs(1));
        assert_eq!(config.listen.port(), 9);
        let flags = Flags::parse_from(["chiptided", "--listen", "127.0.0.1:8"]);
        assert_eq!(Config::load(&flags).expect("valid").listen.port(), 8);
    }

    #[test]
    fn a_wrong_key_or_value_names_itself_and_the_file() {
        let wrong_key = format!("{:#}", load("[agents]\nreport_evry = \"1s\"").expect_err("refused"));
        assert!(wrong_key.contains("agents.report_evry") && wrong_key.contains("chiptided.toml"), "{wrong_key}");
        let wrong_value = format!("{:#}", load("[agents]\nreport_every = \"soon\"").expect_err("refused"));
        assert!(wrong_value.contains("agents.report_every") && wrong_value.contains("soon"), "{wrong_value}");
    }
}
