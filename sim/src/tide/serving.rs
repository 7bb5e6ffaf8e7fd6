//! Inference services as their autoscaler sees them: replicas come and go with the demand.

use chiptide_model::{NodeId, Timestamp};
use std::collections::BTreeMap;

/// The replicas of all services.
#[derive(Debug)]
pub(super) struct Serving {
    services: Vec<Service>,
    /// Inference chips on each node.
    on_node: BTreeMap<NodeId, u32>,
    /// Where to find a replica by its job's number.
    service_of: BTreeMap<u64, usize>,
}

#[derive(Debug)]
struct Service {
    chips: u16,
    replicas: BTreeMap<u64, Replica>,
}

#[derive(Debug)]
struct Replica {
    asked_at: Timestamp,
    /// Where it runs, once it has its lease.
    node: Option<NodeId>,
}

impl Serving {
    pub(super) fn of(replica_chips: &[u16]) -> Serving {
        let service = |&chips: &u16| Service { chips, replicas: BTreeMap::new() };
        let services = replica_chips.iter().map(service).collect();
        Serving { services, on_node: BTreeMap::new(), service_of: BTreeMap::new() }
    }

    /// Replicas that a service has too few of (asked for, running or not).
    pub(super) fn missing(&self, service: usize, wanted: u64) -> u64 {
        wanted.saturating_sub(self.services[service].replicas.len() as u64)
    }

    /// A new replica was asked for.
    pub(super) fn ask(&mut self, service: usize, number: u64, now: Timestamp) {
        self.services[service].replicas.insert(number, Replica { asked_at: now, node: None });
        self.service_of.insert(number, service);
    }

    /// A replica got its lease. Answers its chips and since when it waited.
    pub(super) fn place(&mut self, number: u64, node: &NodeId) -> Option<(u64, Timestamp)> {
        let service = &mut self.services[*self.service_of.get(&number)?];
        let replica = service.replicas.get_mut(&number)?;
        replica.node = Some(node.clone());
        *self.on_node.entry(node.clone()).or_default() += u32::from(service.chips);
        Some((u64::from(service.chips), replica.asked_at))
    }

    /// Takes the replicas a service has too many of: those that still wait, then those on the nodes with least
    /// inference. Each comes with its chips, if it had any, else with since when it waited.
    pub(super) fn take_surplus(&mut self, service: usize, wanted: u64) -> Vec<Ended> {
        let mut ended = Vec::new();
        while self.services[service].replicas.len() as u64 > wanted {
            let load = |node: &NodeId| self.on_node.get(node).copied().unwrap_or(0);
            let rank = |(number, replica): (&u64, &Replica)| {
                let place = replica.node.as_ref().map(|node| (load(node), node.clone()));
                (place, std::cmp::Reverse(*number))
            };
            let least = self.services[service].replicas.iter().map(rank).min();
            let Some((_, std::cmp::Reverse(number))) = least else { break };
            ended.extend(self.end(service, number));
        }
        ended
    }

    fn end(&mut self, service: usize, number: u64) -> Option<Ended> {
        let state = &mut self.services[service];
        let replica = state.replicas.remove(&number)?;
        self.service_of.remove(&number);
        let chips = u64::from(state.chips);
        if let Some(on_node) = replica.node.as_ref().and_then(|node| self.on_node.get_mut(node)) {
            *on_node -= u32::from(state.chips);
        }
        Some(Ended { number, chips, unserved_since: replica.node.is_none().then_some(replica.asked_at) })
    }
}

/// A replica that is no longer wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ended {
    pub number: u64,
    pub chips: u64,
    /// Set when it never got its lease.
    pub unserved_since: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_with_least_inference_is_left_first() {
        let node = |name: &str| NodeId::new(name).expect("a name");
        let mut serving = Serving::of(&[2]);
        for (number, name) in [(1, "full"), (2, "full"), (3, "empty")] {
            serving.ask(0, number, Timestamp(0));
            serving.place(number, &node(name));
        }
        serving.ask(0, 4, Timestamp(5));
        let numbers: Vec<u64> = serving.take_surplus(0, 1).iter().map(|ended| ended.number).collect();
        assert_eq!(numbers, [4, 3, 2]);
        assert_eq!(serving.missing(0, 3), 2);
    }
}
