//! Nodes for people.

use super::{Facts, cores, memory, pairs};
use crate::output::{state, table, text};
use crate::span::{ago, moment};
use chiptide_api::node::NodeView;
use chrono::{DateTime, Utc};

/// A row a node.
pub(crate) fn nodes(nodes: &[NodeView], now: DateTime<Utc>) -> String {
    let mut table = table(&["NODE", "STATE", "REPORTED", "RACK", "CLASSES", "CHIPS FREE", "CORES FREE", "MEMORY FREE"]);
    for node in nodes {
        table.add_row([
            node.id.clone().into(),
            state(&node.state),
            node.reported_at.map_or("never".into(), |at| format!("{} ago", ago(at, now))).into(),
            node.rack.clone().unwrap_or_default().into(),
            node.device_classes.join(", ").into(),
            format!("{}/{}", node.chips_free, node.chips).into(),
            format!("{}/{}", cores(node.cpu_milli_free), cores(node.cpu_milli)).into(),
            comfy_table::Cell::new(format!("{} of {}", memory(node.memory_mib_free), memory(node.memory_mib))),
        ]);
    }
    text(&table)
}

/// One node.
pub(crate) fn node(node: &NodeView, now: DateTime<Utc>) -> String {
    let mut facts = Facts::new();
    facts.add("node", node.id.as_str());
    facts.add("state", state(&node.state));
    facts.add_some("unknown since", node.unknown_since.map(|at| moment(at, now)));
    if let Some(cordon) = &node.cordon {
        let what = if cordon.drain_by.is_some() { "draining" } else { "cordoned" };
        facts.add(what, format!("by {}: {} ({})", cordon.who, cordon.reason, moment(cordon.since, now)));
        facts.add("leases left", cordon.leases.to_string());
        facts.add_some("empty by", cordon.empty_by.map(|at| moment(at, now)));
    }
    facts.add_some("reported", node.reported_at.map(|at| moment(at, now)));
    facts.add_some("rack", node.rack.clone());
    facts.add_some("link domain", node.link_domain.clone());
    facts.add_some("labels", pairs(&node.labels));
    facts.add("device classes", node.device_classes.join(", "));
    facts.add("chips", format!("{}, {} free as a whole", node.chips, node.chips_free));
    facts.add("cores", format!("{}, {} free", cores(node.cpu_milli), cores(node.cpu_milli_free)));
    facts.add("memory", format!("{}, {} free", memory(node.memory_mib), memory(node.memory_mib_free)));
    facts.add("agent", node.agent_version.as_str());
    facts.add_some("driver", node.driver_version.clone());
    facts.text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn a_silent_node_shows() {
        let json = serde_json::json!([
            {"id": "n1", "state": "up", "reported_at": "2026-11-24T11:59:58Z", "rack": "r1", "labels": {},
             "agent_version": "0.1.0", "cpu_milli": 64000, "cpu_milli_free": 1500, "memory_mib": 262144,
             "memory_mib_free": 1536, "chips": 8, "chips_free": 3, "device_classes": ["nvidia-h20"]},
            {"id": "n2", "state": "unknown", "labels": {}, "agent_version": "0.1.0", "cpu_milli": 0, "cpu_milli_free": 0,
             "memory_mib": 0, "memory_mib_free": 0, "chips": 0, "chips_free": 0, "device_classes": []}
        ]);
        let list: Vec<NodeView> = serde_json::from_value(json).expect("nodes");
        let now = "2026-11-24T12:00:00Z".parse().expect("a moment");
        expect![[r#"
            NODE  STATE    REPORTED  RACK  CLASSES     CHIPS FREE  CORES FREE  MEMORY FREE
            n1    up       2s ago    r1    nvidia-h20  3/8         1.5/64      1.5 GiB of 256 GiB
            n2    unknown  never                       0/0         0/0         0 MiB of 0 MiB
        "#]]
        .assert_eq(&nodes(&list, now));
        expect![[r#"
            node            n1
            state           up
            reported        2026-11-24 11:59:58Z (2s ago)
            rack            r1
            device classes  nvidia-h20
            chips           8, 3 free as a whole
            cores           64, 1.5 free
            memory          256 GiB, 1.5 GiB free
            agent           0.1.0
        "#]]
        .assert_eq(&node(&list[0], now));
    }
}
