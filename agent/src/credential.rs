//! The agent's own credential: got once for a join token, kept in the state directory where only the agent's user reads it,
//! and renewed before anybody has had long to copy it.

use anyhow::{Context, bail};
use chiptide_api::{Client, ClientError};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::time::sleep;
use tracing::{info, warn};

/// The file in the state directory.
const FILE: &str = "credential";
/// The pause before the daemon is asked again that did not answer.
const PAUSE: Duration = Duration::from_secs(2);
/// How old a credential becomes before it is renewed, and how often its age is looked at.
const RENEW: (Duration, Duration) = (Duration::from_secs(7 * 24 * 3600), Duration::from_secs(3600));

/// Where the credential is kept.
#[derive(Clone, Debug)]
pub struct Credential {
    file: PathBuf,
}

impl Credential {
    /// The one of this state directory.
    pub fn of(state_dir: &Path) -> Credential {
        Credential { file: state_dir.join(FILE) }
    }

    /// Gives the client the credential that is on disk; where there is none, joins the cluster first. Waits for a daemon
    /// that does not answer; fails when it refuses the join token.
    pub async fn take_up(&self, client: &Client, node: &str, join_token: Option<&str>) -> anyhow::Result<()> {
        match fs::read_to_string(&self.file) {
            Ok(token) => {
                client.set_token(token.trim());
                return Ok(());
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("read {}", self.file.display())),
        }
        let Some(join_token) = join_token else {
            bail!("no credential: set join_token (see `chiptide node join-token`), token_file or CHIPTIDE_AGENT_TOKEN");
        };
        // Before the join token is spent: what it is given for must find its place.
        self.write("")?;
        fs::remove_file(&self.file).with_context(|| format!("remove {}", self.file.display()))?;
        let joined = loop {
            match client.join(node, join_token.trim()).await {
                Ok(joined) => break joined,
                Err(ClientError::Refused(problem)) if problem.status < 500 && problem.status != 429 => {
                    bail!("the daemon does not let this node in: {problem}");
                }
                Err(error) => warn!(%node, "cannot join yet: {error}"),
            }
            sleep(PAUSE).await;
        };
        self.write(&joined.token)?;
        client.set_token(&joined.token);
        info!(%node, credential = %joined.about.id, "joined the cluster");
        Ok(())
    }

    /// Renews the credential whenever it has become old, for ever.
    pub async fn keep_young(self, client: Client, node: String) {
        loop {
            if self.age().is_some_and(|age| age >= RENEW.0)
                && let Err(error) = self.renew(&client, &node).await
            {
                warn!(%node, "the credential is not renewed: {error:#}");
            }
            sleep(RENEW.1).await;
        }
    }

    /// Takes a new credential in place of this one. The old one stays good for a while, should this be cut short.
    pub async fn renew(&self, client: &Client, node: &str) -> anyhow::Result<()> {
        let renewed = client.renew_credential(node).await.context("ask for a new one")?;
        self.write(&renewed.token)?;
        client.set_token(&renewed.token);
        info!(%node, credential = %renewed.about.id, "the credential is renewed");
        Ok(())
    }

    fn age(&self) -> Option<Duration> {
        let written = fs::metadata(&self.file).and_then(|about| about.modified()).ok()?;
        SystemTime::now().duration_since(written).ok()
    }

    /// Whole or not at all, on the disk itself, and for nobody else to read.
    fn write(&self, token: &str) -> anyhow::Result<()> {
        let draft = self.file.with_extension("new");
        let write = || -> std::io::Result<()> {
            // A draft left behind might have another mode.
            match fs::remove_file(&draft) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut out = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&draft)?;
            writeln!(out, "{token}")?;
            out.sync_all()?;
            fs::rename(&draft, &self.file)?;
            File::open(self.file.parent().unwrap_or(Path::new(".")))?.sync_all()
        };
        write().with_context(|| format!("keep the credential in {}", self.file.display()))
    }
}
