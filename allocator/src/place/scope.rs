//! The part of the fleet a plan may use, and the places whose nodes are near to each other.

use crate::cluster::Cluster;
use crate::fleet::{NO_CLASS, NodeIx, Pool};
use crate::queue::Shape;
use chiptide_model::{ChipDemand, Kind, SameLevel};
use std::collections::{BTreeMap, BTreeSet};

/// The part of the fleet a plan may use.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    /// Indices of admitted device classes; `None` admits all.
    pub classes: Option<Vec<usize>>,
    /// Admitted nodes; `None` admits all.
    pub nodes: Option<BTreeSet<NodeIx>>,
}

impl Scope {
    pub(crate) fn admits(&self, pool: &Pool) -> bool {
        self.classes.as_ref().is_none_or(|classes| classes.contains(&pool.class))
            && self.nodes.as_ref().is_none_or(|nodes| nodes.contains(&pool.node))
    }
}

/// The scopes of device classes a job may use, best first: in the order of its wishes, or the least scarce first where
/// it has none.
pub(crate) fn class_scopes(cluster: &Cluster, shape: &Shape) -> Vec<Scope> {
    let known = &cluster.fleet.classes;
    let index = |class| known.iter().position(|known| known == class);
    let wanted: Vec<usize> = match shape.device_classes.as_slice() {
        [] => {
            let mut all: Vec<usize> = (0..known.len()).collect();
            all.sort_by_key(|&class| (cluster.fleet.index.scarcity(class), class));
            all
        }
        classes => classes.iter().filter_map(index).collect(),
    };
    let may_mix = shape.kind == Kind::Inference || shape.replicas == 1 || shape.demand == ChipDemand::Chips(0);
    if shape.device_classes.is_empty() && may_mix {
        return vec![Scope::default()];
    }
    let mut scopes: Vec<Scope> =
        wanted.iter().map(|&class| Scope { classes: Some(vec![class]), nodes: None }).collect();
    if may_mix && wanted.len() > 1 {
        scopes.push(Scope { classes: Some(wanted), nodes: None });
    }
    scopes
}

/// Every node, link fabric or rack of a scope, each as a scope of its own: those with the fewest free chips first, so
/// that large ones stay whole. A node without a fabric or rack is one of its own.
pub(crate) fn places(cluster: &Cluster, level: SameLevel, scope: &Scope) -> Vec<Scope> {
    let mut places: BTreeMap<Result<&str, NodeIx>, (u64, BTreeSet<NodeIx>)> = BTreeMap::new();
    for pool in cluster.fleet.pools.iter().filter(|pool| scope.admits(pool) && pool.class != NO_CLASS) {
        let facts = &cluster.fleet.nodes[pool.node].facts;
        let named = match level {
            SameLevel::Node => None,
            SameLevel::Link => facts.link_domain.as_deref(),
            SameLevel::Rack => facts.rack.as_deref(),
        };
        let (free, nodes) = places.entry(named.ok_or(pool.node)).or_default();
        *free += u64::from(pool.free.slots);
        nodes.insert(pool.node);
    }
    let mut places: Vec<(u64, BTreeSet<NodeIx>)> = places.into_values().collect();
    places.sort_by_key(|(free, nodes)| (*free, nodes.first().copied()));
    places.into_iter().map(|(_, nodes)| Scope { classes: scope.classes.clone(), nodes: Some(nodes) }).collect()
}
