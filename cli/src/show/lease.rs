//! Leases for people.

use super::Facts;
use crate::output::{state, table, text};
use crate::span::{ago, moment, until};
use chiptide_api::lease::{HoldView, LeaseView};
use chiptide_model::SLOTS_PER_CHIP;
use chrono::{DateTime, Utc};
use std::collections::BTreeSet;

/// A row a lease.
pub(crate) fn leases(leases: &[LeaseView], now: DateTime<Utc>) -> String {
    let mut table = table(&["ID", "JOB", "STATE", "CHIPS", "NODES", "AGE", "ENDS"]);
    for lease in leases {
        let chips: BTreeSet<&str> =
            lease.placements.iter().flat_map(|p| p.chips.iter().map(|hold| hold.chip.as_str())).collect();
        let nodes: BTreeSet<&str> = lease.placements.iter().map(|placement| placement.node.as_str()).collect();
        table.add_row([
            lease.id.to_string().into(),
            lease.job.to_string().into(),
            state(&lease.state),
            chips.len().to_string().into(),
            nodes.len().to_string().into(),
            ago(lease.granted_at, now).into(),
            comfy_table::Cell::new(ends(lease, now)),
        ]);
    }
    text(&table)
}

/// One lease, with a row for each chip of each replica.
pub(crate) fn lease(lease: &LeaseView, now: DateTime<Utc>) -> String {
    let mut facts = Facts::new();
    facts.add("lease", lease.id.to_string());
    facts.add("job", format!("{}, attempt {}", lease.job, lease.attempt));
    facts.add("state", state(&lease.state));
    facts.add_some("cause", lease.cause.as_ref().map(|cause| cause.replace('_', " ")));
    facts.add_some("taken for", lease.for_job.map(|job| job.to_string()));
    facts.add_some("deadline", lease.deadline.map(|at| moment(at, now)));
    facts.add("granted", moment(lease.granted_at, now));
    facts.add_some("lapses", lease.expires_at.map(|at| moment(at, now)));
    facts.add_some("ends", lease.ends_at.map(|at| moment(at, now)));
    facts.add_some("ended", lease.ended_at.map(|at| moment(at, now)));
    let mut table = table(&["REPLICA", "NODE", "CHIP", "SHARE", "EPOCH"]);
    for placement in &lease.placements {
        for hold in &placement.chips {
            table.add_row([
                placement.replica.to_string(),
                placement.node.clone(),
                hold.chip.clone(),
                share(hold),
                hold.epoch.to_string(),
            ]);
        }
    }
    format!("{}\n{}", facts.text(), text(&table))
}

fn ends(lease: &LeaseView, now: DateTime<Utc>) -> String {
    match (lease.ended_at, lease.deadline, lease.expires_at.into_iter().chain(lease.ends_at).min()) {
        (Some(at), _, _) => format!("{} ago", ago(at, now)),
        (None, Some(at), _) | (None, None, Some(at)) => until(at, now),
        (None, None, None) => String::new(),
    }
}

fn share(hold: &HoldView) -> String {
    if hold.slots == SLOTS_PER_CHIP { "whole".into() } else { format!("{}/{SLOTS_PER_CHIP}", hold.slots) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_lease_says_when_it_ends() {
        let json = serde_json::json!([{
            "id": "0190c2f0-0000-7000-8000-0000000000aa", "job": "0190c2f0-0000-7000-8000-000000000001", "attempt": 1,
            "state": "active", "granted_at": "2026-11-24T11:00:00Z",
            "expires_at": "2026-11-24T12:01:00Z", "ends_at": "2026-11-24T17:00:00Z",
            "placements": [{"replica": 0, "node": "n1", "chips": [{"chip": "GPU-1", "slots": 250, "epoch": 2}]}]
        }]);
        let list: Vec<LeaseView> = serde_json::from_value(json).expect("leases");
        let now = "2026-11-24T12:00:00Z".parse().expect("a moment");
        expect![[r#"
            ID                                    JOB                                   STATE   CHIPS  NODES  AGE  ENDS
            0190c2f0-0000-7000-8000-0000000000aa  0190c2f0-0000-7000-8000-000000000001  active  1      1      1h   in 1m
        "#]]
        .assert_eq(&leases(&list, now));
    }
}
