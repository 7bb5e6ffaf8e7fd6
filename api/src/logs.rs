//! What workloads have said: what a reader asks for, on its way to the agent that keeps it, and the bytes on their way back.

use chiptide_model::Millis;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// Most bytes of one chunk.
pub const CHUNK_MAX: usize = 256 * 1024;

/// The header that tells at which offset an answer starts: later than asked for, where the node kept only what came after.
pub const OFFSET_HEADER: &str = "chiptide-log-offset";
/// The header that tells the offset to go on from.
pub const NEXT_HEADER: &str = "chiptide-log-next";
/// The header that tells, with `true`, that nothing will follow.
pub const OVER_HEADER: &str = "chiptide-log-over";
/// The header that tells which attempt of the job the output is of.
pub const ATTEMPT_HEADER: &str = "chiptide-log-attempt";

/// One of the two streams of a process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// Standard output.
    #[default]
    Stdout,
    /// Standard error.
    Stderr,
}

impl LogStream {
    /// Its name, which is also the name of its file on the node.
    pub fn as_str(self) -> &'static str {
        match self {
            LogStream::Stdout => "stdout",
            LogStream::Stderr => "stderr",
        }
    }
}

/// A part of a replica's output that somebody waits for. The agent answers each once, with `POST /v1/nodes/{id}/logs`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, ToSchema)]
pub struct LogOrder {
    /// Names the request in the answer.
    pub request: u64,
    /// The lease the replica runs or ran under.
    pub lease: Uuid,
    /// Its index in the gang.
    pub rank: u32,
    /// Which stream.
    pub stream: LogStream,
    /// Bytes from here on, counted from the first the replica ever wrote. Ignored with `tail`.
    pub offset: u64,
    /// Instead of an offset: the last so many lines, as far as one chunk holds them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<u32>,
    /// How long to wait for bytes where there are none yet.
    #[schema(value_type = String, example = "30s")]
    pub wait: Millis,
}

/// What the body of an agent's answer is, in its query string. The body has the bytes as they are, at most 256 KiB.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogAnswer {
    /// The session from registration.
    pub session: Uuid,
    /// The request it answers.
    pub request: u64,
    /// Whether the node has anything of the replica.
    pub found: bool,
    /// Where the bytes start.
    pub offset: u64,
    /// Whether nothing will follow them.
    pub over: bool,
}

/// What a reader asks for: the query of `GET /v1/jobs/{id}/logs`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogQuery {
    /// The replica.
    pub rank: u32,
    /// Which stream.
    pub stream: LogStream,
    /// From where on.
    pub offset: u64,
    /// Instead of an offset: the last so many lines.
    pub tail: Option<u32>,
    /// Which attempt of the job; the newest when absent.
    pub attempt: Option<u32>,
    /// How long to wait for bytes where there are none yet.
    pub wait: Millis,
}

/// A part of a replica's output.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LogChunk {
    /// Where it starts.
    pub offset: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Whether nothing will follow.
    pub over: bool,
    /// Which attempt of the job wrote it.
    pub attempt: u32,
}

impl LogChunk {
    /// The offset to go on from.
    pub fn next(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}
