//! Brings what workloads have said to whoever waits for it at the daemon. Reads files, and holds at most a few chunks: what
//! is asked for beyond that waits its turn.

use crate::work::{Key, Outputs, Said};
use chiptide_api::Client;
use chiptide_api::logs::{CHUNK_MAX, LogAnswer, LogOrder};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tracing::debug;
use uuid::Uuid;

/// Chunks read or on their way at a time.
const CHUNKS_MAX: usize = 8;
/// How often to look whether a workload has said more.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How often to try to bring a chunk, and how long to wait in between.
const TRIES: u32 = 3;
const TRY_AGAIN: Duration = Duration::from_millis(500);

/// The wishes for output that are being answered, or have been.
#[derive(Debug)]
pub(crate) struct Logs {
    outputs: Outputs,
    chunks: Arc<Semaphore>,
    answering: BTreeMap<(Uuid, u64), JoinHandle<()>>,
}

impl Logs {
    pub(crate) fn new(outputs: Outputs) -> Logs {
        Logs { outputs, chunks: Arc::new(Semaphore::new(CHUNKS_MAX)), answering: BTreeMap::new() }
    }

    /// Starts to answer what is newly wished for, and drops what nobody waits for any more.
    pub(crate) fn heed(&mut self, wanted: &[LogOrder], session: Uuid, node: &str, client: &Client) {
        self.answering.retain(|(of, request), task| {
            let kept = *of == session && wanted.iter().any(|order| order.request == *request);
            if !kept {
                task.abort();
            }
            kept
        });
        for order in wanted {
            let answer = Answering {
                order: order.clone(),
                session,
                outputs: self.outputs.clone(),
                node: node.to_owned(),
                client: client.clone(),
            };
            let chunks = self.chunks.clone();
            self.answering.entry((session, order.request)).or_insert_with(|| tokio::spawn(answer.run(chunks)));
        }
    }
}

struct Answering {
    order: LogOrder,
    session: Uuid,
    outputs: Outputs,
    node: String,
    client: Client,
}

impl Answering {
    async fn run(self, chunks: Arc<Semaphore>) {
        let until = Instant::now() + Duration::from_millis(self.order.wait.0);
        loop {
            let permit = chunks.acquire().await;
            let said = self.read().await;
            let nothing_yet = said.as_ref().is_none_or(|said| said.bytes.is_empty() && !said.over);
            if !nothing_yet || Instant::now() >= until {
                return self.bring(said).await;
            }
            // Who only waits holds up nobody.
            drop(permit);
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn read(&self) -> Option<Said> {
        let (outputs, order) = (self.outputs.clone(), self.order.clone());
        let key = Key { lease: order.lease, rank: order.rank };
        let read = move || outputs.read(key, order.stream, order.offset, order.tail, CHUNK_MAX);
        match tokio::task::spawn_blocking(read).await {
            Ok(Ok(said)) => said,
            Ok(Err(error)) => {
                debug!(replica = %key, "its output cannot be read: {error}");
                None
            }
            Err(_) => None,
        }
    }

    async fn bring(&self, said: Option<Said>) {
        let (session, request, found) = (self.session, self.order.request, said.is_some());
        let said = said.unwrap_or_default();
        let told = LogAnswer { session, request, found, offset: said.offset, over: said.over };
        for _ in 0..TRIES {
            match self.client.answer_logs(&self.node, &told, said.bytes.clone()).await {
                Ok(()) => return,
                Err(error) => debug!(request, "the output could not be brought: {error}"),
            }
            sleep(TRY_AGAIN).await;
        }
    }
}
