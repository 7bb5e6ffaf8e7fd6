//! A daemon that answers what a test tells it to.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// What to answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

/// Listens until the test's process ends.
pub(crate) struct Daemon {
    url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Daemon {
    pub(crate) fn start(answer: impl Fn(&Seen) -> Answer + Send + 'static) -> Daemon {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = seen.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                // A caller that gives up half-way is its own business.
                let Some((mut stream, request)) = stream.ok().and_then(read) else { continue };
                let Answer { status, body } = answer(&request);
                log.lock().expect("the log").push(request);
                let body = body.to_string();
                let head =
                    format!("HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all((head + &body).as_bytes()).ok();
            }
        });
        Daemon { url, seen }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The idempotency keys that came, in order.
    pub(crate) fn keys(&self) -> Vec<String> {
        let key =
            |seen: &Seen| seen.head.lines().find_map(|line| line.strip_prefix("idempotency-key: ").map(str::to_owned));
        self.seen().iter().filter_map(key).collect()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("the log").clone()
    }
}

fn read(stream: TcpStream) -> Option<(TcpStream, Seen)> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && head != "\r\n" {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((reader.into_inner(), Seen { method, path, head, body: String::from_utf8_lossy(&body).into_owned() }))
}
