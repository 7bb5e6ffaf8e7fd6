//! `chiptide job logs`: what a replica has written, byte for byte.

use crate::args::Logs;
use crate::failure::Failure;
use crate::output::raw;
use chiptide_api::logs::{LogChunk, LogQuery, LogStream};
use chiptide_api::{Client, ClientError};
use chiptide_model::Millis;
use std::time::Duration;

/// How long the daemon may hold a question whose answer is not there yet.
const WAIT: Millis = Millis::from_secs(30);
/// How long to wait after an answer that came too soon: the node is silent, or the job waits for chips.
const PAUSE: Duration = Duration::from_secs(1);

/// Prints it, to its end so far or as it comes.
pub(crate) async fn print(logs: &Logs, client: &Client) -> Result<(), Failure> {
    let stream = if logs.stderr { LogStream::Stderr } else { LogStream::Stdout };
    let (wait, tail) = (if logs.follow { WAIT } else { Millis(0) }, logs.tail);
    let mut query = LogQuery { rank: logs.rank, stream, offset: 0, tail, attempt: logs.attempt, wait };
    loop {
        let chunk = match client.job_logs(logs.id, &query).await {
            Ok(chunk) => chunk,
            Err(error) if logs.follow && passes(&error) => {
                if client.job(logs.id).await?.is_ended() && error.code() != Some("node_silent") {
                    return Ok(());
                }
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        say_what_is_missing(&query, &chunk);
        raw(&chunk.bytes)?;
        (query.attempt, query.offset, query.tail) = (Some(chunk.attempt), chunk.next(), None);
        if logs.follow && chunk.over {
            match next_attempt(client, logs, chunk.attempt).await? {
                Some(attempt) => (query.attempt, query.offset) = (Some(attempt), 0),
                None => return Ok(()),
            }
        } else if !logs.follow && chunk.bytes.is_empty() {
            return Ok(());
        }
    }
}

/// Older output is gone from the node: said once, where something is missing.
fn say_what_is_missing(query: &LogQuery, chunk: &LogChunk) {
    if query.tail.is_none() && chunk.offset > query.offset {
        eprintln!("(the node keeps no more of {} bytes written before)", chunk.offset - query.offset);
    }
}

/// Whether a refusal may pass by itself.
fn passes(error: &ClientError) -> bool {
    matches!(error, ClientError::Unreachable { .. })
        || matches!(
            error.code(),
            Some("not_started" | "no_output" | "node_silent" | "too_many_readers" | "unavailable" | "no_leader")
        )
}

/// The attempt after this one, once there is one; `None` when the job ends without.
async fn next_attempt(client: &Client, logs: &Logs, over: u32) -> Result<Option<u32>, Failure> {
    let mut job = client.job(logs.id).await?;
    loop {
        if job.attempt > over {
            return Ok(Some(over + 1));
        }
        if job.is_ended() {
            return Ok(None);
        }
        job = client.watch_job(logs.id, job.revision, WAIT).await?;
    }
}
