//! Jobs for people.

use super::{Facts, cores, lease, memory, pairs};
use crate::output::{state, table, text};
use crate::span::{ago, moment, until};
use chiptide_api::job::{BudgetBody, ClassBody, JobBody, JobView, KindBody, PriorityBody, SameLevelBody, Strength};
use chiptide_api::lease::EvictionView;
use chiptide_api::work::RunView;
use chrono::{DateTime, Utc};

/// A row a job.
pub(crate) fn jobs(jobs: &[JobView], now: DateTime<Utc>) -> String {
    let mut table = table(&["ID", "NAME", "KIND", "QUEUE", "PRIORITY", "CHIPS", "STATE", "AGE", "WHY"]);
    for job in jobs {
        table.add_row([
            job.id.to_string().into(),
            job.spec.name.clone().into(),
            kind(job.spec.kind).into(),
            job.spec.queue.clone().into(),
            job.priority.to_string().into(),
            demand(&job.spec).into(),
            state(&job.state),
            ago(job.submitted_at, now).into(),
            comfy_table::Cell::new(why(job, now)),
        ]);
    }
    text(&table)
}

/// The whole story of one job.
pub(crate) fn job(job: &JobView, now: DateTime<Utc>) -> String {
    let spec = &job.spec;
    let mut facts = Facts::new();
    facts.add("job", job.id.to_string());
    facts.add("name", spec.name.as_str());
    facts.add("state", state(&job.state));
    facts.add_some("reason", job.reason.clone());
    facts.add_some("deadline", job.deadline.map(|at| moment(at, now)));
    for (at, reason) in job.reasons.iter().enumerate() {
        facts.add(if at == 0 { "waits for" } else { "" }, format!("{} ({})", reason.message, reason.code));
    }
    facts.add_some("promised", job.promise.as_ref().map(|promise| promised(promise.chips, promise.waiting_for)));
    facts.add_some("reserved", job.reservation.as_ref().map(|reserved| format!("{} chips", reserved.chips)));
    facts.add_some("starts by", job.reservation.as_ref().map(|reserved| moment(reserved.starts_at, now)));
    facts.add_some("promise ends", job.promise.as_ref().map(|promise| moment(promise.deadline, now)));
    facts.add("kind", kind(spec.kind));
    facts.add("queue", spec.queue.as_str());
    facts.add("priority", priority(job));
    facts.add("preemptible", if spec.preemptible == Some(true) { "yes" } else { "no" });
    facts.add("asks for", asks_for(spec));
    facts.add_some("device classes", (!spec.device_classes.is_empty()).then(|| classes(&spec.device_classes)));
    facts.add_some("grace", spec.grace.map(|span| span.to_string()));
    facts.add_some("max duration", spec.max_duration.map(|span| span.to_string()));
    facts.add_some("checkpoint every", spec.checkpoint_every.map(|span| span.to_string()));
    facts.add_some("restart cost", spec.restart_cost.map(|span| span.to_string()));
    facts.add_some("min runtime", spec.min_runtime.map(|span| span.to_string()));
    facts.add_some("preemption budget", spec.preemption_budget.as_ref().map(budget));
    facts.add_some("last checkpoint", job.checkpointed_at.map(|at| moment(at, now)));
    facts.add_some("lease ttl", spec.lease_ttl.map(|span| span.to_string()));
    facts.add_some("labels", pairs(&spec.labels));
    facts.add_some("command", spec.workload.as_ref().map(|workload| workload.command.join(" ")));
    facts.add_some("replicas held", spec.replicas_min.map(|_| job.replicas_held.to_string()));
    facts.add("submitted", moment(job.submitted_at, now));
    facts.add("changed", moment(job.changed_at, now));
    facts.add("attempts", format!("{}, preempted {} times", job.attempt, job.preemptions));
    facts.add_some("restarts", (job.restarts > 0).then(|| job.restarts.to_string()));
    let mut story = facts.text();
    if let Some(eviction) = &job.eviction {
        story.push('\n');
        story.push_str(&self::eviction(eviction, now));
    }
    for run in &job.runs {
        story.push('\n');
        story.push_str(&self::run(run, now));
    }
    for live in job.lease.iter().chain(&job.extras) {
        story.push('\n');
        story.push_str(&lease(live, now));
    }
    story
}

/// How the job's chips were taken the last time, step by step.
fn eviction(eviction: &EvictionView, now: DateTime<Utc>) -> String {
    let for_whom = eviction.for_job.map_or(String::new(), |job| format!(" for {job}"));
    let mut story = format!("eviction of attempt {}: {}{for_whom}\n", eviction.attempt, eviction.cause);
    let mut table = table(&["STEP", "AT", "NODE", "DETAIL"]);
    for step in &eviction.steps {
        table.add_row([
            step.step.clone(),
            format!("{} ({})", step.at.format("%H:%M:%S%.3fZ"), ago(step.at, now)),
            step.node.clone().unwrap_or_default(),
            step.detail.clone().unwrap_or_default(),
        ]);
    }
    story.push_str(&text(&table));
    story
}

/// One run of a job's replicas.
fn run(run: &RunView, now: DateTime<Utc>) -> String {
    let ended = run.ended_at.map_or("going on".to_owned(), |at| format!("over {}", moment(at, now)));
    let mut story = format!("attempt {}, run {}: {ended}\n", run.attempt, run.run);
    if let Some(failure) = &run.failure {
        story.push_str(&format!("failed first: {failure}\n"));
    }
    let mut table = table(&["REPLICA", "NODE", "WORK", "HOW", "ENDED"]);
    for replica in &run.replicas {
        table.add_row([
            replica.replica.to_string().into(),
            replica.node.clone().into(),
            state(&replica.state),
            replica.reason.clone().unwrap_or_default().into(),
            comfy_table::Cell::new(replica.ended_at.map(|at| moment(at, now)).unwrap_or_default()),
        ]);
    }
    story + &text(&table)
}

/// One line for one change of a job.
pub(crate) fn line(job: &JobView, now: DateTime<Utc>) -> String {
    let why = why(job, now);
    let at = job.changed_at.format("%H:%M:%SZ");
    format!("{at} {} {}{}{why}", job.spec.name, job.state, if why.is_empty() { "" } else { ": " })
}

/// Why a job is where it is, in one line: why it waits, when it must go, where it runs, how it ended.
pub(crate) fn why(job: &JobView, now: DateTime<Utc>) -> String {
    let mut words: Vec<String> = Vec::new();
    if let Some(promise) = &job.promise {
        words.push(promised(promise.chips, promise.waiting_for));
    }
    words.extend(job.reasons.iter().map(|reason| reason.message.clone()));
    words.extend(job.deadline.map(|at| format!("must leave {}", until(at, now))));
    words.extend(job.reason.clone());
    if let Some(lease) = job.lease.as_ref().filter(|_| job.deadline.is_none()) {
        let mut nodes: Vec<&str> = lease.placements.iter().map(|placement| placement.node.as_str()).collect();
        nodes.dedup();
        words.push(match nodes.len() {
            0..=3 => format!("on {}", nodes.join(", ")),
            n => format!("on {} and {} more nodes", nodes[0], n - 1),
        });
    }
    words.join("; ")
}

fn promised(chips: u32, waiting_for: u32) -> String {
    format!("{chips} chips promised, {waiting_for} still to be vacated")
}

fn kind(kind: KindBody) -> &'static str {
    match kind {
        KindBody::Training => "training",
        KindBody::Inference => "inference",
    }
}

fn priority(job: &JobView) -> String {
    match &job.spec.priority_class {
        Some(PriorityBody::Class(class)) => format!("{} ({class})", job.priority),
        _ => job.priority.to_string(),
    }
}

/// `4x8`: four replicas of eight chips; `2x0.5`: two halves; `1x8 GiB`: one share of that much memory.
fn demand(spec: &JobBody) -> String {
    let one = match (spec.chips, &spec.share) {
        (Some(chips), _) => chips.to_string(),
        (None, Some(share)) => match (share.fraction, share.memory_mib) {
            (Some(fraction), _) => fraction.to_string(),
            (None, mib) => memory(mib.unwrap_or(0)),
        },
        (None, None) => "?".into(),
    };
    match (spec.replicas_min, spec.replicas_max) {
        (Some(min), Some(max)) => format!("{min}-{max}x{one}"),
        _ => format!("{}x{one}", spec.replicas.unwrap_or(1)),
    }
}

/// `2 a day, 1h apart`.
fn budget(budget: &BudgetBody) -> String {
    let per_day = budget.per_day.map(|most| format!("{most} a day"));
    let apart = budget.cool_down.map(|span| format!("{span} apart"));
    per_day.into_iter().chain(apart).collect::<Vec<_>>().join(", ")
}

fn asks_for(spec: &JobBody) -> String {
    let mut text = format!("{} (replicas x chips)", demand(spec));
    if spec.cpu_milli > 0 {
        text.push_str(&format!(", {} cores", cores(spec.cpu_milli)));
    }
    if spec.memory_mib > 0 {
        text.push_str(&format!(", {} of memory", memory(spec.memory_mib)));
    }
    if spec.cpu_milli > 0 || spec.memory_mib > 0 {
        text.push_str(" each");
    }
    if let Some(same) = &spec.same {
        let level = match same.level {
            SameLevelBody::Node => "node",
            SameLevelBody::Link => "link",
            SameLevelBody::Rack => "rack",
        };
        text.push_str(if same.strength == Strength::Required { ", on one " } else { ", if possible on one " });
        text.push_str(level);
    }
    text
}

/// Device classes as a job accepts them, with their speeds where it gives them.
fn classes(bodies: &[ClassBody]) -> String {
    let text = |body: &ClassBody| match body {
        ClassBody::Name(name) => name.clone(),
        ClassBody::Rated(rated) => format!("{} at {}", rated.class, rated.speed),
    };
    bodies.iter().map(text).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::{Value, json};

    fn now() -> DateTime<Utc> {
        "2026-11-24T12:00:00Z".parse().expect("a moment")
    }

    fn view(more: Value) -> JobView {
        let mut view = json!({
            "id": "0190c2f0-0000-7000-8000-000000000001", "state": "pending", "attempt": 0, "preemptions": 0,
            "submitted_at": "2026-11-24T11:58:00Z", "changed_at": "2026-11-24T11:59:30Z", "revision": 3, "priority": 500,
            "spec": {
                "kind": "training", "name": "llm", "queue": "training", "priority_class": "standard", "replicas": 4,
                "chips": 8, "cpu_milli": 1500, "memory_mib": 2048, "preemptible": true, "grace": "30s",
                "same": {"level": "rack", "strength": "preferred"}, "labels": {"team": "research"}
            }
        });
        for (key, value) in more.as_object().expect("an object") {
            view[key] = value.clone();
        }
        serde_json::from_value(view).expect("a job")
    }

    fn waiting() -> JobView {
        view(json!({
            "reasons": [{"code": "insufficient_chips", "message": "needs 32 chips, 20 are free"}],
            "promise": {"chips": 32, "waiting_for": 12, "deadline": "2026-11-24T12:01:00Z"}
        }))
    }

    fn preempting() -> JobView {
        view(json!({
            "state": "preempting", "deadline": "2026-11-24T12:00:25Z", "attempt": 1,
            "lease": {
                "id": "0190c2f0-0000-7000-8000-0000000000aa", "job": "0190c2f0-0000-7000-8000-000000000001", "attempt": 1,
                "state": "revoking", "cause": "preempt", "for_job": "0190c2f0-0000-7000-8000-000000000002",
                "deadline": "2026-11-24T12:00:25Z", "granted_at": "2026-11-24T11:59:00Z",
                "placements": [{"replica": 0, "node": "n1", "chips": [
                    {"chip": "GPU-1", "slots": 1000, "epoch": 7}, {"chip": "GPU-2", "slots": 500, "epoch": 2}]}]
            }
        }))
    }

    #[test]
    fn a_list_says_why_each_job_is_where_it_is() {
        let running = view(json!({"state": "running", "lease": {
            "id": "0190c2f0-0000-7000-8000-0000000000ab", "job": "0190c2f0-0000-7000-8000-000000000001", "attempt": 1,
            "state": "active", "granted_at": "2026-11-24T11:59:00Z",
            "placements": [{"replica": 0, "node": "n1", "chips": []}, {"replica": 1, "node": "n2", "chips": []}]}}));
        let failed = view(json!({"state": "failed", "reason": "max_duration"}));
        let text = jobs(&[waiting(), running, preempting(), failed], now());
        expect![[r#"
            ID                                    NAME  KIND      QUEUE     PRIORITY  CHIPS  STATE       AGE  WHY
            0190c2f0-0000-7000-8000-000000000001  llm   training  training  500       4x8    pending     2m   32 chips promised, 12 still to be vacated; needs 32 chips, 20 are free
            0190c2f0-0000-7000-8000-000000000001  llm   training  training  500       4x8    running     2m   on n1, n2
            0190c2f0-0000-7000-8000-000000000001  llm   training  training  500       4x8    preempting  2m   must leave in 25s
            0190c2f0-0000-7000-8000-000000000001  llm   training  training  500       4x8    failed      2m   max_duration
        "#]]
        .assert_eq(&text);
    }

    #[test]
    fn a_job_tells_its_whole_story() {
        expect![[r#"
            job           0190c2f0-0000-7000-8000-000000000001
            name          llm
            state         pending
            waits for     needs 32 chips, 20 are free (insufficient_chips)
            promised      32 chips promised, 12 still to be vacated
            promise ends  2026-11-24 12:01:00Z (in 1m)
            kind          training
            queue         training
            priority      500 (standard)
            preemptible   yes
            asks for      4x8 (replicas x chips), 1.5 cores, 2 GiB of memory each, if possible on one rack
            grace         30s
            labels        team=research
            submitted     2026-11-24 11:58:00Z (2m ago)
            changed       2026-11-24 11:59:30Z (30s ago)
            attempts      0, preempted 0 times
        "#]]
        .assert_eq(&job(&waiting(), now()));
        expect![[r#"
            job          0190c2f0-0000-7000-8000-000000000001
            name         llm
            state        preempting
            deadline     2026-11-24 12:00:25Z (in 25s)
            kind         training
            queue        training
            priority     500 (standard)
            preemptible  yes
            asks for     4x8 (replicas x chips), 1.5 cores, 2 GiB of memory each, if possible on one rack
            grace        30s
            labels       team=research
            submitted    2026-11-24 11:58:00Z (2m ago)
            changed      2026-11-24 11:59:30Z (30s ago)
            attempts     1, preempted 0 times

            lease      0190c2f0-0000-7000-8000-0000000000aa
            job        0190c2f0-0000-7000-8000-000000000001, attempt 1
            state      revoking
            cause      preempt
            taken for  0190c2f0-0000-7000-8000-000000000002
            deadline   2026-11-24 12:00:25Z (in 25s)
            granted    2026-11-24 11:59:00Z (1m ago)

            REPLICA  NODE  CHIP   SHARE     EPOCH
            0        n1    GPU-1  whole     7
            0        n1    GPU-2  500/1000  2
        "#]]
        .assert_eq(&job(&preempting(), now()));
    }

    #[test]
    fn an_eviction_is_told_step_by_step() {
        let eviction = eviction(
            &serde_json::from_value(json!({
                "lease": "0190c2f0-0000-7000-8000-0000000000aa", "attempt": 1, "cause": "preempt",
                "for_job": "0190c2f0-0000-7000-8000-000000000002",
                "steps": [
                    {"step": "notice", "at": "2026-11-24T11:59:00Z", "detail": "it has 30s"},
                    {"step": "killed", "at": "2026-11-24T11:59:32.250Z", "node": "n1"}]
            }))
            .expect("an eviction"),
            now(),
        );
        expect![[r#"
            eviction of attempt 1: preempt for 0190c2f0-0000-7000-8000-000000000002
            STEP    AT                   NODE  DETAIL
            notice  11:59:00.000Z (1m)         it has 30s
            killed  11:59:32.250Z (27s)  n1
        "#]]
        .assert_eq(&eviction);
    }

    #[test]
    fn every_run_tells_how_its_replicas_ended() {
        let run = run(
            &serde_json::from_value(json!({
                "attempt": 1, "run": 0, "ended_at": "2026-11-24T11:59:30Z",
                "failure": "replica 1 on n2: killed by SIGKILL, out of memory",
                "replicas": [
                    {"replica": 0, "node": "n1", "state": "running"},
                    {"replica": 1, "node": "n2", "state": "killed", "signal": "SIGKILL", "out_of_memory": true,
                        "reason": "killed by SIGKILL, out of memory", "ended_at": "2026-11-24T11:59:29Z"}]
            }))
            .expect("a run"),
            now(),
        );
        expect![[r#"
            attempt 1, run 0: over 2026-11-24 11:59:30Z (30s ago)
            failed first: replica 1 on n2: killed by SIGKILL, out of memory
            REPLICA  NODE  WORK     HOW                               ENDED
            0        n1    running
            1        n2    killed   killed by SIGKILL, out of memory  2026-11-24 11:59:29Z (31s ago)
        "#]]
        .assert_eq(&run);
    }

    #[test]
    fn a_change_is_a_line() {
        expect!["11:59:30Z llm pending: 32 chips promised, 12 still to be vacated; needs 32 chips, 20 are free"]
            .assert_eq(&line(&waiting(), now()));
        expect!["11:59:30Z llm cancelled"].assert_eq(&line(&view(json!({"state": "cancelled"})), now()));
    }
}
