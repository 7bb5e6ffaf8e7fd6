//! Too much at once: each kind of request has places of its own, and who only dawdles is sent away.

use crate::common::{Daemon, Node, SOON, job};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_watchers_is_shed_and_keeps_no_report_and_no_submit_waiting() {
    let daemon = Daemon::with_config("[admission]\nwatches = 1").await;
    let mut node = Node::register(&daemon, "n1", 1).await;
    let id = daemon.client.create_job(&job(json!({})), None).await.expect("accepted").id;
    let path = format!("{}/v1/jobs/{id}?wait=30s&after=9", daemon.base);
    let watch = || reqwest::Client::new().get(&path).bearer_auth(&daemon.token).send();
    let first = tokio::spawn(watch());
    let shed = timeout(SOON, async {
        // The first may need a moment to arrive; of two that are under way, one is refused.
        loop {
            let answer = timeout(std::time::Duration::from_millis(200), watch()).await;
            if let Ok(Ok(answer)) = answer
                && answer.status().as_u16() == 429
            {
                return answer;
            }
        }
    });
    let shed = shed.await.expect("the second is shed");
    assert_eq!(shed.headers()["retry-after"], "1");
    assert_eq!(shed.json::<serde_json::Value>().await.expect("a problem")["code"], "overloaded");
    assert!(node.obey().await.accepted);
    daemon.client.create_job(&job(json!({})), None).await.expect("accepted");
    first.abort();
}

/// Sends these bytes and reads until the daemon closes the connection.
async fn say(daemon: &Daemon, text: &str) -> String {
    let mut stream = TcpStream::connect(daemon.base.trim_start_matches("http://")).await.expect("connected");
    stream.write_all(text.as_bytes()).await.expect("sent");
    let mut said = Vec::new();
    let read = timeout(SOON, stream.read_to_end(&mut said)).await.expect("the daemon closes it");
    read.expect("in order");
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_dawdles_is_sent_away() {
    let daemon = Daemon::with_config("[admission]\nhead_limit = \"300ms\"\nbody_limit = \"300ms\"").await;
    assert_eq!(say(&daemon, "").await, "", "an idle connection");
    assert_eq!(say(&daemon, "GET /healthz HTTP/1.1\r\nhost: ").await, "", "half a head");
    let kept_open = say(&daemon, "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(kept_open.starts_with("HTTP/1.1 200"), "{kept_open}");
    let slow = "POST /v1/jobs HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\nauthorization: Bearer ";
    let slow = say(&daemon, &format!("{slow}{}\r\n\r\n{{", daemon.token)).await;
    assert!(slow.starts_with("HTTP/1.1 408") && slow.contains("body_too_slow"), "{slow}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_over_the_limit_are_closed_at_once() {
    let daemon = Daemon::with_config("[admission]\nconnections = 2").await;
    let connect = async || TcpStream::connect(daemon.base.trim_start_matches("http://")).await.expect("connected");
    let (mut a, mut b, mut c) = (connect().await, connect().await, connect().await);
    // Which of them comes too late is open.
    let closed = async {
        let (mut x, mut y, mut z) = ([0], [0], [0]);
        tokio::select! { read = a.read(&mut x) => read, read = b.read(&mut y) => read, read = c.read(&mut z) => read }
    };
    assert!(timeout(SOON, closed).await.expect("one is closed").is_ok_and(|read| read == 0));
    drop((a, b, c));
    let open_again = timeout(SOON, async {
        while reqwest::get(format!("{}/healthz", daemon.base)).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    });
    open_again.await.expect("places are given back");
}
