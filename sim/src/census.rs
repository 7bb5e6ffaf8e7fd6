//! A count of the fleet at one moment, over the API: how much of it is allocated, and why jobs wait.

use crate::scheduler::Scheduler;
use chiptide_api::ClientError;
use chiptide_api::chip::ChipView;
use chiptide_api::job::JobView;
use serde::Serialize;
use std::collections::BTreeMap;

/// The fleet at one moment.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
pub struct Census {
    /// Chips there are.
    pub chips: u64,
    /// Chips' worth of slots under live leases, in percent of all slots.
    pub allocated_pct: f64,
    /// Chips' worth of slots under live leases.
    pub allocated_chips: f64,
    /// Chips being proven vacant.
    pub reclaiming_chips: u64,
    /// Chips that are quarantined or unknown.
    pub unavailable_chips: u64,
    /// Jobs that wait.
    pub jobs_waiting: u64,
    /// Jobs that wait, by the first reason they are given; `promised` for those whose chips are on their way.
    pub waiting_by_reason: BTreeMap<String, u64>,
}

impl Census {
    /// Counts the chips, and the jobs that wait.
    pub async fn take(scheduler: &Scheduler) -> Result<Census, ClientError> {
        let mut census = Census::of_chips(&chips(scheduler).await?);
        for job in scheduler.jobs_in("pending").await? {
            census.jobs_waiting += 1;
            *census.waiting_by_reason.entry(why_waiting(&job)).or_default() += 1;
        }
        Ok(census)
    }

    fn of_chips(chips: &[ChipView]) -> Census {
        let live = chips.iter().flat_map(|chip| &chip.holders).filter(|holder| !holder.reclaiming);
        let allocated_chips = live.map(|holder| u64::from(holder.slots)).sum::<u64>() as f64 / 1000.0;
        let in_state =
            |states: &[&str]| chips.iter().filter(|chip| states.contains(&chip.state.as_str())).count() as u64;
        Census {
            chips: chips.len() as u64,
            allocated_pct: if chips.is_empty() { 0.0 } else { 100.0 * allocated_chips / chips.len() as f64 },
            allocated_chips,
            reclaiming_chips: in_state(&["reclaiming"]),
            unavailable_chips: in_state(&["quarantined", "unknown"]),
            ..Census::default()
        }
    }
}

async fn chips(scheduler: &Scheduler) -> Result<Vec<ChipView>, ClientError> {
    let (mut chips, mut cursor) = (Vec::new(), None);
    loop {
        let mut filters = vec![("limit", "500".to_owned())];
        filters.extend(cursor.map(|cursor| ("cursor", cursor)));
        let page = scheduler.client().chips(&filters).await?;
        chips.extend(page.items);
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => return Ok(chips),
        }
    }
}

fn why_waiting(job: &JobView) -> String {
    match (&job.promise, job.reasons.first()) {
        (Some(_), _) => "promised".into(),
        (None, Some(reason)) => reason.code.clone(),
        (None, None) => "none_given".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chiptide_api::chip::HolderView;
    use uuid::Uuid;

    fn chip(state: &str, holders: &[(u16, bool)]) -> ChipView {
        let holder = |(slots, reclaiming): &(u16, bool)| HolderView {
            lease: Uuid::nil(),
            job: Uuid::nil(),
            slots: *slots,
            epoch: 1,
            reclaiming: *reclaiming,
        };
        serde_json::from_value(serde_json::json!({
            "id": "c", "node": "n", "device_class": "nvidia-t4", "product": "T4", "memory_mib": 1, "state": state,
            "health": "healthy", "lease_epoch": 1, "free_slots": 0,
            "holders": holders.iter().map(holder).collect::<Vec<_>>(),
        }))
        .expect("a chip")
    }

    #[test]
    fn only_live_leases_count_as_allocated() {
        let chips = [
            chip("held", &[(1000, false)]),
            chip("held", &[(500, false)]),
            chip("reclaiming", &[(250, false), (500, true)]),
            chip("unknown", &[]),
        ];
        let census = Census::of_chips(&chips);
        assert_eq!(census.allocated_chips, 1.75);
        assert_eq!(census.allocated_pct, 43.75);
        assert_eq!((census.reclaiming_chips, census.unavailable_chips), (1, 1));
    }
}
