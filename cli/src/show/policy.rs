//! Policies, their history and dry runs for people.

use crate::output::{table, text};
use chiptide_api::dry_run::{DryRunQueueState, DryRunView};
use chiptide_api::policy::{ChangeView, EffectView, PolicyAppliedView, PolicyVersionView, PolicyView, WarningView};
use serde_json::Value;

/// The document, under a line that says whose it is.
pub(crate) fn policy(policy: &PolicyView) -> String {
    let document = serde_saphyr::to_string(&policy.policy).unwrap_or_default();
    let reason = if policy.reason.is_empty() { String::new() } else { format!(": {}", policy.reason) };
    format!("# version {} by {}, {}{reason}\n{document}", policy.version, policy.author, policy.applied_at)
}

/// A row a version.
pub(crate) fn policy_versions(versions: &[PolicyVersionView]) -> String {
    let mut rows = table(&["VERSION", "APPLIED", "AUTHOR", "CHANGES", "REASON"]);
    for version in versions {
        let paths: Vec<&str> = version.changes.iter().map(|change| change.path.as_str()).collect();
        let shown = match paths.as_slice() {
            [] => "-".to_owned(),
            [one] => (*one).to_owned(),
            [first, rest @ ..] => format!("{first} and {} more", rest.len()),
        };
        let applied = version.applied_at.format("%Y-%m-%d %H:%M:%S").to_string();
        rows.add_row([version.version.to_string(), applied, version.author.clone(), shown, version.reason.clone()]);
    }
    text(&rows)
}

/// A line a change, as in a diff.
pub(crate) fn changes(changes: &[ChangeView]) -> String {
    if changes.is_empty() {
        return "nothing changes\n".into();
    }
    changes.iter().map(change).collect()
}

fn change(change: &ChangeView) -> String {
    let side = |mark: char, value: &Option<Value>| {
        value.as_ref().map_or(String::new(), |value| format!("{mark} {}: {value}\n", change.path))
    };
    side('-', &change.before) + &side('+', &change.after)
}

/// What a change did.
pub(crate) fn policy_applied(applied: &PolicyAppliedView) -> String {
    format!("version {} is in force\n{}{}", applied.version, effects(&applied.changes), warnings(&applied.warnings))
}

fn effects(changes: &[EffectView]) -> String {
    changes
        .iter()
        .map(|effect| format!("{}    {}: {}\n", change(&effect.change), effect.takes_effect, effect.effect))
        .collect()
}

fn warnings(warnings: &[WarningView]) -> String {
    let line = |warning: &WarningView| warning.line.map_or(String::new(), |line| format!("line {line}, "));
    warnings
        .iter()
        .map(|warning| format!("warning: {}{}: {}\n", line(warning), warning.field, warning.detail))
        .collect()
}

/// What would happen: changes, evictions, starts, queues.
pub(crate) fn dry_run(told: &DryRunView) -> String {
    let mut shown = effects(&told.changes) + &warnings(&told.warnings);
    shown += &format!("{} leases would be taken, {} jobs would start\n", told.evictions_total, told.starts_total);
    if !told.evictions.is_empty() {
        let mut rows = table(&["EVICTED", "QUEUE", "CAUSE", "CHIPS", "LOST CHIP-S", "LEAVES BY"]);
        for lost in &told.evictions {
            let by = lost.deadline.format("%H:%M:%S").to_string();
            let (chips, work) = (number(lost.chips), number(lost.lost_chip_seconds));
            rows.add_row([lost.name.clone(), lost.queue.clone(), lost.cause.clone(), chips, work, by]);
        }
        shown += &text(&rows);
    }
    if !told.starts.is_empty() {
        let mut rows = table(&["STARTS", "QUEUE", "CHIPS", "WAITED", "WHEN"]);
        for start in &told.starts {
            let when = start.promised_by.map_or("now".to_owned(), |by| format!("by {}", by.format("%H:%M:%S")));
            let waited = start.waited.to_string();
            rows.add_row([start.name.clone(), start.queue.clone(), number(start.chips), waited, when]);
        }
        shown += &text(&rows);
    }
    if !told.queues.is_empty() {
        let mut rows = table(&["QUEUE", "USED", "BORROWED", "WAITING", "LONGEST WAIT"]);
        for queue in &told.queues {
            let (was, is) = (&queue.before, &queue.after);
            let both = |of: fn(&DryRunQueueState) -> String| format!("{} -> {}", of(was), of(is));
            rows.add_row([
                queue.name.clone(),
                both(|state| number(state.used)),
                both(|state| number(state.borrowed)),
                both(|state| state.waiting.to_string()),
                both(|state| state.longest_wait.to_string()),
            ]);
        }
        shown += &text(&rows);
    }
    for job in &told.jobs {
        let why: Vec<&str> = job.reasons.iter().map(|reason| reason.message.as_str()).collect();
        shown += &format!(
            "{} would be {}{}{}\n",
            job.spec.name,
            job.state,
            if why.is_empty() { "" } else { ": " },
            why.join("; ")
        );
    }
    shown
}

fn number(value: f64) -> String {
    format!("{value:.2}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn a_dry_run_reads_from_the_change_to_who_is_hit() {
        let state = |used: f64, waiting: u64| json!({"used": used, "guaranteed": 0.0, "borrowed": 0.0, "waiting": waiting, "longest_wait": "5m"});
        let told: DryRunView = serde_json::from_value(json!({
            "plan": "0", "policy_version": 1, "evictions_total": 1, "starts_total": 1,
            "changes": [{"path": "queues.ads.weight", "before": 1, "after": 2, "takes_effect": "now", "effect": "at once"}],
            "warnings": [{"field": "queues.ads", "line": 3, "detail": "look"}],
            "evictions": [{"lease": "0190c2f0-0000-7000-8000-000000000001", "job": "0190c2f0-0000-7000-8000-000000000002",
                "name": "llm", "queue": "lab", "cause": "reclaim", "deadline": "2026-11-24T12:00:30Z", "chips": 2.0,
                "lost_chip_seconds": 60.5}],
            "starts": [{"job": "0190c2f0-0000-7000-8000-000000000003", "name": "chat", "queue": "ads", "chips": 2.0, "waited": "5m"}],
            "queues": [{"name": "ads", "before": state(0.0, 1), "after": state(2.0, 0)}]
        }))
        .expect("a dry run");
        expect![[r#"
            - queues.ads.weight: 1
            + queues.ads.weight: 2
                now: at once
            warning: line 3, queues.ads: look
            1 leases would be taken, 1 jobs would start
            EVICTED  QUEUE  CAUSE    CHIPS  LOST CHIP-S  LEAVES BY
            llm      lab    reclaim  2      60.5         12:00:30
            STARTS  QUEUE  CHIPS  WAITED  WHEN
            chat    ads    2      5m      now
            QUEUE  USED    BORROWED  WAITING  LONGEST WAIT
            ads    0 -> 2  0 -> 0    1 -> 0   5m -> 5m
        "#]]
        .assert_eq(&dry_run(&told));
    }
}
