//! `chiptide events`: what happened, and what happens.

use crate::args::Events;
use crate::failure::Failure;
use crate::output::Out;
use chiptide_api::Client;
use chiptide_api::event::EventView;

/// Most events of one page.
const PAGE: u32 = 500;

/// Prints the last events, or those after a position; with `follow`, goes on.
pub(crate) async fn print(events: &Events, client: &Client, out: Out) -> Result<(), Failure> {
    let filters = filters(events);
    let given = || filters.iter().map(|(name, value)| (name.as_str(), value.clone()));
    let mut query: Vec<(&str, String)> = given().chain([("limit", PAGE.to_string())]).collect();
    query.push(match events.after {
        Some(after) => ("after", after.to_string()),
        None => ("last", events.last.to_string()),
    });
    let mut seen = events.after;
    loop {
        let page = client.events(&query).await?;
        for event in &page.items {
            seen = Some(event.seq);
            out.stream(event, line)?;
        }
        let Some(next) = page.next_cursor else { break };
        seen = next.parse().ok().or(seen);
        query.truncate(filters.len() + 1);
        query.push(("after", next));
    }
    if !events.follow {
        return Ok(());
    }
    let mut stream = client.watch_events(filters, seen);
    loop {
        out.stream(&stream.next().await?, line)?;
    }
}

fn filters(events: &Events) -> Vec<(String, String)> {
    let given = [("job", &events.job), ("queue", &events.queue), ("node", &events.node), ("type", &events.kind)];
    let given = given.into_iter().filter(|(_, values)| !values.is_empty());
    given.map(|(name, values)| (name.to_owned(), values.join(","))).collect()
}

/// One event for people: when, what, about what, and the rest as it is.
fn line(event: &EventView) -> String {
    let body = serde_json::to_value(&event.body).unwrap_or_default();
    let kind = body["type"].as_str().unwrap_or_default();
    let mut text = format!("{:>8}  {}  {kind:<20}", event.seq, event.at.format("%Y-%m-%d %H:%M:%S%.3f"));
    let about = [
        ("job", event.job.map(|job| job.to_string())),
        ("lease", event.lease.map(|lease| lease.to_string())),
        ("chip", event.chip.clone()),
        ("queue", event.queue.clone()),
        ("nodes", Some(event.nodes.join(",")).filter(|nodes| !nodes.is_empty())),
    ];
    for (name, value) in about.into_iter().filter_map(|(name, value)| Some((name, value?))) {
        text.push_str(&format!("  {name}={value}"));
    }
    for (name, value) in body["data"].as_object().into_iter().flatten().filter(|(_, value)| !value.is_array()) {
        match value.as_str() {
            Some(word) => text.push_str(&format!("  {name}={word}")),
            None => text.push_str(&format!("  {name}={value}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let event: EventView = serde_json::from_value(serde_json::json!({
            "seq": 7, "at": "2026-11-24T03:12:00.250Z", "job": "00000000-0000-0000-0000-000000000001", "queue": "ads",
            "lease": "00000000-0000-0000-0000-000000000002", "nodes": ["n1", "n2"], "type": "lease_revoked",
            "data": {"cause": "preempt", "deadline": "2026-11-24T03:12:30Z"}
        }))
        .expect("an event");
        assert_eq!(
            line(&event),
            "       7  2026-11-24 03:12:00.250  lease_revoked         job=00000000-0000-0000-0000-000000000001  \
             lease=00000000-0000-0000-0000-000000000002  queue=ads  nodes=n1,n2  cause=preempt  \
             deadline=2026-11-24T03:12:30Z"
        );
    }
}
