//! The event log: every event once, in order, over restarts, standbys and whatever else breaks a stream.

use crate::common::{Daemon, Node, SOON, job};
use chiptide_api::event::{EventBody, EventView};
use chiptide_api::event_stream::EventStream;
use serde_json::json;

/// Reads until an event of this type has come.
async fn until(stream: &mut EventStream, kind: &str) -> Vec<EventView> {
    let mut seen = Vec::new();
    let read = async {
        loop {
            let event = stream.next().await.expect("an event");
            let is_it = kind_of(&event) == kind;
            seen.push(event);
            if is_it {
                return;
            }
        }
    };
    tokio::time::timeout(SOON, read).await.unwrap_or_else(|_| panic!("no {kind} came"));
    seen
}

fn kind_of(event: &EventView) -> String {
    serde_json::to_value(event).expect("JSON")["type"].as_str().expect("a type").to_owned()
}

#[tokio::test]
async fn a_watcher_sees_everything_once_over_a_restart() {
    let daemon = Daemon::start().await;
    let mut stream = daemon.client.watch_events(Vec::new(), Some(0));
    let mut node = Node::register(&daemon, "n1", 2).await;
    let created = daemon.client.create_job(&job(json!({"labels": {"team": "a"}})), None).await.expect("created");
    node.obey().await;
    let mut seen = until(&mut stream, "job_started").await;

    let daemon = daemon.restart().await;
    let session = Node::register(&daemon, "n1", 2).await.session;
    node.join(&daemon, session);
    daemon.client.cancel_job(created.id, None).await.expect("cancelled");
    // The old address is gone with the old daemon: a client that knows the new one goes on from its position.
    let mut stream = daemon.client.watch_events(Vec::new(), stream.position());
    seen.extend(until(&mut stream, "lease_ended").await);

    let positions: Vec<u64> = seen.iter().map(|event| event.seq).collect();
    assert_eq!(positions, (1..=positions.len() as u64).collect::<Vec<_>>());
    let granted = seen.iter().find(|event| kind_of(event) == "lease_granted").expect("granted");
    assert_eq!(granted.job, Some(created.id));
    assert_eq!((granted.queue.as_deref(), granted.nodes.as_slice()), (Some("default"), &["n1".to_owned()][..]));
    let ended = seen.last().expect("the end");
    assert_eq!((ended.job, ended.queue.as_deref()), (Some(created.id), Some("default")));
    assert!(
        matches!(&ended.body, EventBody::LeaseEnded { cause, next, .. } if cause == "cancelled" && next == "cancelled")
    );
    daemon.stop().await;
}

#[tokio::test]
async fn filters_and_pages_and_a_standby_say_the_same() {
    let daemon = Daemon::start().await;
    Node::register(&daemon, "n1", 1).await;
    Node::register(&daemon, "n2", 1).await;
    let body = |queue: &str| job(json!({"queue": queue}));
    let training = daemon.client.create_job(&body("training"), None).await.expect("created");
    daemon.client.create_job(&body("inference"), None).await.expect("created");
    let standby = daemon.another().await;

    let of_training = |filters: &[(&str, &str)]| -> Vec<(String, String)> {
        filters.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    };
    let filters = of_training(&[("queue", "training"), ("type", "job_submitted,lease_granted")]);
    for asked in [&daemon, &standby] {
        let mut stream = asked.client.watch_events(filters.clone(), Some(0));
        let seen = until(&mut stream, "lease_granted").await;
        assert_eq!(seen.iter().map(|event| event.job).collect::<Vec<_>>(), [Some(training.id); 2]);
        let pairs: Vec<(&str, String)> = filters.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        assert_eq!(asked.client.events(&pairs).await.expect("a page").items, seen);
    }
    let page = daemon.client.events(&[("limit", "2".into())]).await.expect("a page");
    assert_eq!(page.items.iter().map(|event| event.seq).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(page.next_cursor.as_deref(), Some("2"));

    // What happens while both watch comes from both, though the standby only follows.
    let mut streams = [&daemon, &standby].map(|asked| asked.client.watch_events(Vec::new(), Some(0)));
    for stream in &mut streams {
        until(stream, "lease_granted").await;
    }
    daemon.client.cancel_job(training.id, None).await.expect("cancelled");
    let [ours, theirs] = &mut streams;
    assert_eq!(until(ours, "lease_ended").await.last(), until(theirs, "lease_ended").await.last());
    standby.stop().await;
    daemon.stop().await;
}

#[tokio::test]
async fn what_is_no_filter_and_one_watcher_too_many_are_refused() {
    let daemon = Daemon::with_config("[admission]\nevent_watches = 1\n").await;
    for (query, field) in [("type=lease_gone", "type"), ("job=7", "job"), ("after=999999", "after"), ("who=x", "query")]
    {
        let (status, problem) = daemon.send("GET", &format!("/v1/events?{query}"), "").await;
        assert_eq!((status, problem["field"].as_str()), (400, Some(field)), "{query}: {problem}");
    }
    let open = async || {
        let url = format!("{}/v1/events", daemon.base);
        reqwest::Client::new().get(url).bearer_auth(&daemon.token).send().await.expect("an answer")
    };
    let first = open().await;
    assert_eq!(first.headers()["content-type"], "text/event-stream");
    let second = open().await;
    assert_eq!(second.status(), 429);
    assert!(second.headers().contains_key("retry-after"));
    daemon.stop().await;
}
