//! The jobs of the loads: as small as jobs get, so that what is measured is the daemon.

use chiptide_api::job::{JobBody, KindBody, PriorityBody, UnfitBody};
use chiptide_model::Millis;
use std::collections::BTreeMap;

/// A job of one replica with one chip, of any class.
pub fn job(name: String, kind: KindBody, priority_class: &str, grace: Millis) -> JobBody {
    gang(name, kind, priority_class, grace, 1, 1)
}

/// A gang of `replicas` with `chips` chips each.
pub fn gang(name: String, kind: KindBody, priority_class: &str, grace: Millis, replicas: u64, chips: u64) -> JobBody {
    JobBody {
        kind,
        name,
        queue: "default".into(),
        priority_class: Some(PriorityBody::Class(priority_class.into())),
        replicas: Some(replicas),
        chips: Some(chips),
        share: None,
        cpu_milli: 1000 * chips,
        memory_mib: 1024 * chips,
        device_classes: Vec::new(),
        same: None,
        max_duration: None,
        preemptible: None,
        grace: Some(grace),
        checkpoint_every: None,
        restart_cost: None,
        min_runtime: None,
        preemption_budget: None,
        replicas_min: None,
        replicas_max: None,
        lease_ttl: None,
        on_node_loss: None,
        unfit: UnfitBody::Wait,
        labels: BTreeMap::new(),
        workload: None,
    }
}
