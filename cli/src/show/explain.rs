//! Explanations for people: what a job waits for, who is in its way, what would help, when; and why it was evicted.

use super::Facts;
use crate::output::{state, table, text};
use crate::span::{moment, until};
use chiptide_api::explain::{
    BlockerView, CostView, EvictionView, ExplainView, HoldersView, JobHolderView, StandingView, StartView,
};
use chrono::{DateTime, Utc};

/// Everything there is to say about one job.
pub(crate) fn explanation(told: &ExplainView, now: DateTime<Utc>) -> String {
    let mut facts = Facts::new();
    facts.add("job", format!("{} ({})", told.job, told.name));
    facts.add("state", state(&told.state));
    facts.add("in short", told.message.as_str());
    facts.add_some("start", told.start.as_ref().map(|estimate| start(estimate, now)));
    if let Some(promise) = &told.promise {
        let progress = &promise.progress;
        let (chips, waiting) = (progress.chips, progress.waiting_for);
        let deadline = until(progress.deadline, now);
        facts.add("promised", format!("{chips} chips, {waiting} still to be vacated; planned anew {deadline}"));
        facts.add_some("taken for it", promise.choice.as_ref().map(|choice| cost(&choice.cost)));
    }
    if let Some(standing) = &told.standing {
        stand(&mut facts, standing, now);
    }
    let mut story = facts.text();
    for blocker in &told.blockers {
        story.push_str(&self::blocker(blocker, now));
    }
    if !told.ways.is_empty() {
        story.push_str("\nWhat would help, cheapest first\n");
        for way in &told.ways {
            let by = way.until.map(|at| format!(" ({})", until(at, now))).unwrap_or_default();
            story.push_str(&format!("- {}{by}\n", way.message));
            story.push_str(&leases(&way.leases, now));
        }
    }
    if !told.evictions.is_empty() {
        story.push_str("\nEvictions, newest first\n");
        told.evictions.iter().for_each(|eviction| story.push_str(&evicted(eviction, now)));
    }
    story
}

fn blocker(blocker: &BlockerView, now: DateTime<Utc>) -> String {
    let reason = &blocker.reason;
    let by = reason.over_by.map(|at| format!(", {} at the latest", until(at, now))).unwrap_or_default();
    let mut text = format!("\nIn the way: {} ({}){by}\n", reason.message, reason.code);
    if let (Some(requested), Some(available), Some(unit)) = (reason.requested, reason.available, &reason.unit) {
        let missing = reason.shortfall.unwrap_or_default();
        text.push_str(&format!("  {requested} {unit} asked for, {available} there, {missing} missing\n"));
    }
    if let Some(HoldersView { count, chips, largest }) = &blocker.holders {
        text.push_str(&format!(
            "  held: {} chips by {count} {}\n",
            short(*chips),
            if *count == 1 { "job" } else { "jobs" }
        ));
        text.push_str(&leases(largest, now));
    }
    if let Some(way) = &blocker.unblock {
        text.push_str(&format!("  cheapest way out: {}\n", way.message));
    }
    text
}

fn leases(holders: &[JobHolderView], now: DateTime<Utc>) -> String {
    if holders.is_empty() {
        return String::new();
    }
    let mut rows = table(&["  CHIPS", "NAME", "QUEUE", "PRIORITY", "KIND", "LEAVES", "JOB", ""]);
    for holder in holders {
        rows.add_row([
            format!("  {}", short(holder.chips)),
            holder.name.clone(),
            holder.queue.clone(),
            holder.priority.to_string(),
            holder.kind.clone(),
            holder.leaves_by.map_or("?".into(), |at| until(at, now)),
            holder.job.to_string(),
            holder.spared.as_ref().map(|why| why.replace('_', " ")).unwrap_or_default(),
        ]);
    }
    text(&rows).lines().map(|line| format!("  {line}\n")).collect()
}

fn start(start: &StartView, now: DateTime<Utc>) -> String {
    let ahead = match start.ahead {
        0 => String::new(),
        1 => ", 1 job ahead".into(),
        n => format!(", {n} jobs ahead"),
    };
    let at = |moment: Option<DateTime<Utc>>| moment.map(|at| until(at, now));
    let words = [("earliest", start.earliest), ("likely", start.likely), ("at the latest", start.latest)];
    let known: Vec<String> =
        words.iter().filter_map(|(word, moment)| Some(format!("{word} {}", at(*moment)?))).collect();
    match known.as_slice() {
        [] => format!("not known: nothing that is known would make room{ahead}"),
        known => format!("{} ({}{ahead})", known.join(", "), start.basis.replace('_', " ")),
    }
}

fn stand(facts: &mut Facts, standing: &StandingView, now: DateTime<Utc>) {
    facts.add("lease", standing.lease.to_string());
    let extras = |n: u32| format!("{} of {} replicas; the first to go, the last to come back", n, standing.replicas);
    facts.add_some("extra", Some(standing.extras).filter(|n| *n > 0).map(extras));
    facts.add("since", moment(standing.since, now));
    facts.add_some("ends", standing.ends_at.map(|at| moment(at, now)));
    facts.add_some("lapses", standing.expires_at.map(|at| moment(at, now)));
    facts.add_some("safe until", standing.not_before.map(|at| moment(at, now)));
    facts.add_some("its price", standing.cost.as_ref().map(cost));
}

fn evicted(eviction: &EvictionView, now: DateTime<Utc>) -> String {
    let EvictionView { at, attempt, cause, message, .. } = eviction;
    let detail = eviction.detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default();
    format!("- {} attempt {attempt}, {}: {message}{detail}\n", moment(*at, now), cause.replace('_', " "))
}

fn cost(cost: &CostView) -> String {
    let gangs = if cost.gangs == 1 { "1 gang".into() } else { format!("{} gangs", cost.gangs) };
    format!("{} chip-hours of {gangs}", short(cost.lost_chip_seconds / 3600.0))
}

/// At most two places behind the point, and none where they are nought.
fn short(number: f64) -> String {
    format!("{number:.2}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;

    fn now() -> DateTime<Utc> {
        "2026-11-24T12:00:00Z".parse().expect("a moment")
    }

    #[test]
    fn a_waiting_job_reads_from_the_trouble_to_the_way_out() {
        let holder = json!({"job": "0190c2f0-0000-7000-8000-000000000002", "name": "train", "queue": "lab", "priority": 500,
            "kind": "training", "lease": "0190c2f0-0000-7000-8000-0000000000aa", "chips": 8.0,
            "leaves_by": "2026-11-24T13:00:00Z"});
        let way = json!({"code": "wait", "message": "wait: train will have left by then", "until": "2026-11-24T13:00:00Z",
            "leases": [holder], "count": 1});
        let told: ExplainView = serde_json::from_value(json!({
            "job": "0190c2f0-0000-7000-8000-000000000001", "name": "llm", "queue": "default", "priority": 500,
            "state": "pending", "message": "it waits: 8 chips are needed, 2 are free",
            "blockers": [{"code": "insufficient_chips", "unit": "chips", "requested": 8, "available": 2, "shortfall": 6,
                "message": "8 chips are needed, 2 are free", "unblock": way,
                "holders": {"count": 3, "chips": 14.5, "largest": [holder]}}],
            "ways": [way, {"code": "fewer_replicas", "message": "ask for at most 1 replica", "replicas": 1}],
            "start": {"earliest": "2026-11-24T13:00:00Z", "likely": "2026-11-24T14:00:00Z", "basis": "known_ends", "ahead": 2}
        }))
        .expect("an explanation");
        expect![[r#"
            job       0190c2f0-0000-7000-8000-000000000001 (llm)
            state     pending
            in short  it waits: 8 chips are needed, 2 are free
            start     earliest in 1h, likely in 2h (known ends, 2 jobs ahead)

            In the way: 8 chips are needed, 2 are free (insufficient_chips)
              8 chips asked for, 2 there, 6 missing
              held: 14.5 chips by 3 jobs
                CHIPS  NAME   QUEUE  PRIORITY  KIND      LEAVES  JOB
                8      train  lab    500       training  in 1h   0190c2f0-0000-7000-8000-000000000002
              cheapest way out: wait: train will have left by then

            What would help, cheapest first
            - wait: train will have left by then (in 1h)
                CHIPS  NAME   QUEUE  PRIORITY  KIND      LEAVES  JOB
                8      train  lab    500       training  in 1h   0190c2f0-0000-7000-8000-000000000002
            - ask for at most 1 replica
        "#]]
        .assert_eq(&explanation(&told, now()));
    }

    #[test]
    fn an_eviction_is_a_sentence_with_its_time() {
        let told: ExplainView = serde_json::from_value(json!({
            "job": "0190c2f0-0000-7000-8000-000000000001", "name": "llm", "queue": "default", "priority": 500,
            "state": "running", "message": "it holds 8 chips on 1 node",
            "standing": {"lease": "0190c2f0-0000-7000-8000-0000000000ab", "chips": 8.0, "replicas": 8, "extras": 2, "nodes": 1,
                "since": "2026-11-24T11:00:00Z", "exposure": "preemptible", "above_priority": 500,
                "cost": {"lost_chip_seconds": 9000.0, "gangs": 1, "age_seconds": 3600.0}},
            "evictions": [{"lease": "0190c2f0-0000-7000-8000-0000000000aa", "attempt": 1, "at": "2026-11-24T10:00:00Z",
                "deadline": "2026-11-24T10:00:30Z", "cause": "preempt", "chips": 8.0, "lost_chip_seconds": 60.0,
                "message": "8 chips went to chat"}]
        }))
        .expect("an explanation");
        expect![[r#"
            job        0190c2f0-0000-7000-8000-000000000001 (llm)
            state      running
            in short   it holds 8 chips on 1 node
            lease      0190c2f0-0000-7000-8000-0000000000ab
            extra      2 of 8 replicas; the first to go, the last to come back
            since      2026-11-24 11:00:00Z (1h ago)
            its price  2.5 chip-hours of 1 gang

            Evictions, newest first
            - 2026-11-24 10:00:00Z (2h ago) attempt 1, preempt: 8 chips went to chat
        "#]]
        .assert_eq(&explanation(&told, now()));
    }
}
