//! What the daemon counts. Names are here and nowhere else; labels are bounded.

use crate::store::trouble::Trouble;
use chiptide_model::Event;
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use std::time::Duration;

const ROUNDS: &str = "chiptide_rounds_total";
const ROUND_COMMANDS: &str = "chiptide_round_commands_total";
const ROUND_FAILURES: &str = "chiptide_round_failures_total";
const ROUND_PHASE: &str = "chiptide_round_phase_seconds";
const VIOLATIONS: &str = "chiptide_invariant_violations_total";
const EVENTS: &str = "chiptide_events_total";
const HTTP: &str = "chiptide_http_requests_total";
const REPORTS_IGNORED: &str = "chiptide_reports_ignored_total";
const JOBS: &str = "chiptide_jobs";
const CHIPS: &str = "chiptide_chips";
const SHED: &str = "chiptide_requests_shed_total";
const ROUND_QUEUE: &str = "chiptide_round_queue";
const STORE_STATE: &str = "chiptide_store_state";
const LEADING: &str = "chiptide_leading";
const TAKEOVERS: &str = "chiptide_takeovers_total";
const AUDIT_DROPPED: &str = "chiptide_audit_dropped_total";
const FORWARDED: &str = "chiptide_forwarded_requests_total";

/// Installs the recorder. Once a process.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let buckets = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
    let handle = PrometheusBuilder::new().set_buckets(&buckets)?.install_recorder()?;
    describe_counter!(ROUNDS, "Rounds committed");
    describe_counter!(ROUND_COMMANDS, "Commands handled by rounds");
    describe_counter!(ROUND_FAILURES, "Rounds dropped because their commit failed");
    describe_histogram!(ROUND_PHASE, "Time of each phase of a round, in seconds");
    describe_counter!(VIOLATIONS, "Broken invariants found by the recount; any is a bug");
    describe_counter!(EVENTS, "Events committed, by kind");
    describe_counter!(HTTP, "HTTP answers, by route, method and status");
    describe_counter!(REPORTS_IGNORED, "Agent reports ignored, by reason");
    describe_gauge!(LEADING, "1 while this daemon leads, else 0");
    describe_counter!(TAKEOVERS, "Times this daemon has taken the lead");
    describe_counter!(FORWARDED, "Requests passed on to the leader, by outcome");
    describe_counter!(AUDIT_DROPPED, "Refusals that the audit had no room for, by reason");
    describe_gauge!(JOBS, "Live jobs, by state");
    describe_gauge!(CHIPS, "Chips, by state");
    describe_counter!(SHED, "Requests and connections refused because too many came at once, by kind and reason");
    describe_gauge!(ROUND_QUEUE, "Commands that wait for a round, by lane");
    describe_gauge!(STORE_STATE, "1 for the state that the database is in (ok, or what is wrong), 0 for the others");
    metrics_process::Collector::default().describe();
    Ok(handle)
}

/// The audit had no room for a refusal.
pub fn audit_dropped(reason: &'static str) {
    counter!(AUDIT_DROPPED, "reason" => reason).increment(1);
}

/// A round was committed.
pub fn round_committed() {
    counter!(ROUNDS).increment(1);
}

/// Commands were decided.
pub fn decided(commands: usize, events: &[Event]) {
    counter!(ROUND_COMMANDS).increment(commands as u64);
    for event in events {
        counter!(EVENTS, "kind" => event.kind()).increment(1);
    }
}

/// A phase of a round took this long: `replay`, `decide`, `answer`, `commit` or `apply`.
pub fn round_phase(phase: &'static str, took: Duration) {
    histogram!(ROUND_PHASE, "phase" => phase).record(took);
}

/// A round was dropped.
pub fn round_failed() {
    counter!(ROUND_FAILURES).increment(1);
}

/// The recount found broken invariants.
pub fn violations(found: usize) {
    counter!(VIOLATIONS).increment(found as u64);
}

/// A request was answered.
pub fn answered(route: &str, method: &str, status: u16) {
    counter!(HTTP, "route" => route.to_owned(), "method" => method.to_owned(), "code" => status.to_string())
        .increment(1);
}

/// A report was ignored: it was older than one already seen.
pub fn report_ignored() {
    counter!(REPORTS_IGNORED, "reason" => "old_seq").increment(1);
}

/// A request (or a connection) of this kind was refused: too many came at once.
pub fn shed(kind: &'static str, reason: &'static str) {
    counter!(SHED, "kind" => kind, "reason" => reason).increment(1);
}

/// So many commands wait for a round.
pub fn round_queue(lane: &'static str, waiting: usize) {
    gauge!(ROUND_QUEUE, "lane" => lane).set(waiting as f64);
}

/// The state the database is in: well, or in this trouble.
pub fn store_state(trouble: Option<Trouble>) {
    gauge!(STORE_STATE, "state" => "ok").set(f64::from(trouble.is_none()));
    for known in Trouble::ALL {
        gauge!(STORE_STATE, "state" => known.as_str()).set(f64::from(trouble == Some(known)));
    }
}

/// Whether this daemon leads.
pub fn leading(leads: bool) {
    gauge!(LEADING).set(f64::from(leads));
}

/// This daemon has taken the lead.
pub fn took_over() {
    counter!(TAKEOVERS).increment(1);
}

/// A request was passed on to the leader, or could not be: `answered`, `unreachable`, `unknown` (the connection broke, or
/// the leader changed, after it was sent) or `loop` (it had been passed on before).
pub fn forwarded(outcome: &'static str) {
    counter!(FORWARDED, "outcome" => outcome).increment(1);
}

/// Sets the gauges that are counted on demand.
pub fn observe(cluster: &chiptide_allocator::Cluster) {
    let mut jobs = [("pending", 0u32), ("leased", 0), ("running", 0), ("preempting", 0)];
    for job in cluster.jobs() {
        jobs.iter_mut().filter(|(state, _)| *state == job.state.as_str()).for_each(|(_, count)| *count += 1);
    }
    let mut chips = [("free", 0u32), ("held", 0), ("reclaiming", 0), ("quarantined", 0), ("unknown", 0)];
    for chip in &cluster.fleet.chips {
        let state = chip.state(&cluster.fleet.nodes[chip.node]).to_string();
        chips.iter_mut().filter(|(known, _)| *known == state).for_each(|(_, count)| *count += 1);
    }
    jobs.iter().for_each(|(state, count)| gauge!(JOBS, "state" => *state).set(*count));
    chips.iter().for_each(|(state, count)| gauge!(CHIPS, "state" => *state).set(*count));
    metrics_process::Collector::default().collect();
}
