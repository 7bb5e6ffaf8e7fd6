//! Waits for a change of a job, and says on stderr meanwhile why it has not come.

use crate::failure::Failure;
use crate::show;
use chiptide_api::job::JobView;
use chiptide_api::{Client, ClientError};
use chiptide_model::Millis;
use chrono::Utc;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

/// One long-poll; the daemon answers at its end with what it has.
const POLL: Duration = Duration::from_secs(25);
/// How long a daemon may be away (a restart, a failover) before the wait is given up.
const AWAY_MAX: Duration = Duration::from_secs(60);
/// How often a call is made whose answer does not come.
const TRIES_MAX: u32 = 5;

/// How long to wait.
pub(crate) struct Patience {
    span: Option<Millis>,
    until: Option<Instant>,
}

impl Patience {
    /// Until `span` from now.
    pub(crate) fn of(span: Millis) -> Patience {
        Patience { span: Some(span), until: Instant::now().checked_add(Duration::from_millis(span.0)) }
    }

    /// However long it takes.
    pub(crate) fn endless() -> Patience {
        Patience { span: None, until: None }
    }

    fn left(&self) -> Duration {
        self.until.map_or(POLL, |until| until.saturating_duration_since(Instant::now()))
    }
}

/// Keeps `job` up to date until `reached` holds.
pub(crate) async fn wait_until(
    client: &Client,
    job: &mut JobView,
    patience: &Patience,
    reached: impl Fn(&JobView) -> bool,
) -> Result<(), Failure> {
    let mut talk = Talk::new(patience.span.is_some());
    let mut away_since: Option<Instant> = None;
    while !reached(job) {
        talk.say(&format!("{} {}: {}", job.spec.name, job.state, show::why(job, Utc::now())));
        let wait = patience.left().min(POLL);
        if wait.is_zero() {
            let span = patience.span.unwrap_or_default();
            let why = show::why(job, Utc::now());
            return Err(Failure::Unmet(format!("job {} is still {} after {span}: {why}", job.id, job.state)));
        }
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
        match client.watch_job(job.id, job.revision, Millis(wait_ms)).await {
            Ok(newer) => {
                *job = newer;
                away_since = None;
            }
            Err(error) if is_passing(&error) && away_since.get_or_insert_with(Instant::now).elapsed() < AWAY_MAX => {
                talk.say("the daemon does not answer; trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Repeats a call that carries an idempotency key while its answer is lost or the daemon is handing over: the key makes
/// every repetition the same call. A daemon that is not there at all is reported at once.
pub(crate) async fn insist<T>(key: &str, call: impl AsyncFn() -> Result<T, ClientError>) -> Result<T, Failure> {
    let mut tries = 1;
    loop {
        match call().await {
            Ok(answer) => return Ok(answer),
            Err(ClientError::Unreachable { source, url }) if source.is_connect() => {
                return Err(ClientError::Unreachable { source, url }.into());
            }
            Err(error) if is_passing(&error) && tries < TRIES_MAX => {
                eprintln!("no answer yet ({}); trying again", Failure::from(error));
                tries += 1;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            Err(error) if is_passing(&error) => {
                let error = Failure::from(error);
                return Err(Failure::Unmet(format!(
                    "{error}; whether it took effect is unknown: repeat it with --idempotency-key {key}"
                )));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether a daemon that restarts or hands over would answer so.
fn is_passing(error: &ClientError) -> bool {
    match error {
        ClientError::Unreachable { .. } => true,
        ClientError::Refused(problem) => problem.status == 503,
        ClientError::Unexpected { status, .. } => matches!(status, 502..=504),
    }
}

/// A line that changes in place on a terminal; elsewhere a line for each new thing to say.
struct Talk {
    bar: Option<ProgressBar>,
    said: String,
    aloud: bool,
}

impl Talk {
    fn new(aloud: bool) -> Talk {
        let bar = (aloud && stderr().is_terminal()).then(|| spinner("{spinner} {msg} ({elapsed})"));
        Talk { bar, said: String::new(), aloud }
    }

    fn say(&mut self, text: &str) {
        if self.said == text {
            return;
        }
        text.clone_into(&mut self.said);
        match &self.bar {
            Some(bar) => bar.set_message(self.said.clone()),
            None if self.aloud => eprintln!("{text}"),
            None => {}
        }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A spinner on stderr that moves by itself.
pub(crate) fn spinner(template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}
