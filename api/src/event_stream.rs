//! The events of a daemon as they happen. A stream that breaks off is taken up again where it was: nothing is lost, nothing
//! comes twice.

use crate::client::{Client, ClientError};
use crate::event::EventView;
use reqwest::Response;
use std::time::Duration;

/// The daemon says something every 15 s; after this long a connection counts as dead.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// The pause before a broken stream is taken up again.
const PAUSE: Duration = Duration::from_millis(500);

/// Events as they happen, from a position on.
#[derive(Debug)]
pub struct EventStream {
    client: Client,
    filters: Vec<(String, String)>,
    position: Option<u64>,
    answer: Option<Response>,
    buffer: Buffer,
}

impl EventStream {
    /// What follows `position`, or what happens from now on. `filters` are the query parameters of `GET /v1/events`.
    pub fn new(client: Client, filters: Vec<(String, String)>, position: Option<u64>) -> EventStream {
        EventStream { client, filters, position, answer: None, buffer: Buffer::default() }
    }

    /// The position of the last event seen, or passed over because it did not fit the filters.
    pub fn position(&self) -> Option<u64> {
        self.position
    }

    /// The next event; waits for it for as long as it takes. Fails when the daemon refuses for good.
    ///
    /// Cancel-safe.
    pub async fn next(&mut self) -> Result<EventView, ClientError> {
        loop {
            while let Some(message) = self.buffer.take() {
                self.position = message.id.or(self.position);
                if let Some(data) = message.data {
                    return serde_json::from_str(&data)
                        .map_err(|error| ClientError::Unexpected { status: 200, detail: error.to_string() });
                }
            }
            let Some(answer) = &mut self.answer else {
                self.connect().await?;
                continue;
            };
            match tokio::time::timeout(SILENCE_MAX, answer.chunk()).await {
                Ok(Ok(Some(bytes))) => self.buffer.add(&bytes),
                // At its end, broken or silent: what is half there comes again.
                _ => {
                    (self.answer, self.buffer) = (None, Buffer::default());
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn connect(&mut self) -> Result<(), ClientError> {
        loop {
            match self.client.open_events(&self.filters, self.position).await {
                Ok(answer) => {
                    self.answer = Some(answer);
                    return Ok(());
                }
                Err(ClientError::Unreachable { .. }) => self.client.move_on(),
                Err(ClientError::Refused(problem)) if matches!(problem.status, 429 | 503) => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// One message of a stream of server-sent events.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Message {
    id: Option<u64>,
    data: Option<String>,
}

/// Bytes that have come and make no whole message yet.
#[derive(Debug, Default)]
struct Buffer {
    bytes: Vec<u8>,
    taken: usize,
}

impl Buffer {
    fn add(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    fn take(&mut self) -> Option<Message> {
        let rest = &self.bytes[self.taken..];
        let length = rest.windows(2).position(|pair| pair == b"\n\n")?;
        let text = String::from_utf8_lossy(&rest[..length]).into_owned();
        self.taken += length + 2;
        let mut message = Message::default();
        for line in text.lines() {
            if let Some(id) = line.strip_prefix("id: ") {
                message.id = id.parse().ok();
            } else if let Some(data) = line.strip_prefix("data: ") {
                message.data = Some(data.to_owned());
            }
        }
        Some(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_whole_however_their_bytes_are_cut() {
        let text = b": hello\nid: 4\n\nid: 5\nevent: node_heard\ndata: {}\n\nid: 6\nda";
        for cut in 0..text.len() {
            let (mut buffer, mut seen) = (Buffer::default(), Vec::new());
            for part in [&text[..cut], &text[cut..]] {
                buffer.add(part);
                seen.extend(std::iter::from_fn(|| buffer.take()));
            }
            let message = |id, data: Option<&str>| Message { id: Some(id), data: data.map(str::to_owned) };
            assert_eq!(seen, [message(4, None), message(5, Some("{}"))], "cut at {cut}");
        }
    }
}
