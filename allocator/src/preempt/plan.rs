//! From a search to a plan: the best set of victims of one scope, the next best, and the chips the gang will get.

use super::exact::{self, LEASES_MAX, SETS_OF_ALL, SETS_OF_NAMED};
use super::field::{Field, Question};
use super::greedy::{By, gather, opening_bids};
use super::price::Scratch;
use super::reach::Reach;
use super::stakes::{HolderIx, Stand};
use crate::fleet::{NodeIx, PoolIx};
use crate::place::{Scope, find_within};
use crate::queue::Shape;
use crate::room::{Need, Room};
use chiptide_model::{Cost, LeaseId, Placement};
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// How often a plan is tried to be bettered by forbidding its dearest victim.
const BETTERED_MAX: usize = 3;

/// A way to make room.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Plan {
    /// Where the replicas will run.
    pub placements: Vec<Placement>,
    /// Who goes.
    pub victims: BTreeSet<LeaseId>,
    /// What that costs.
    pub cost: Cost,
    /// The next best set of victims, if another would do.
    pub runner_up: Option<(BTreeSet<LeaseId>, Cost)>,
}

/// What is to be placed.
#[derive(Clone, Copy)]
pub(crate) struct Gang<'a> {
    pub shape: &'a Shape,
    pub need: Need,
    pub replicas: u32,
}

/// Victims that make room within a scope.
#[derive(Clone)]
pub(crate) struct Found {
    pub cost: Cost,
    victims: Vec<HolderIx>,
    scope: Scope,
    gang: (Need, u32),
    /// Set where the gang was looked for as one replica: it must stay on one node.
    on_one_node: Option<Need>,
    preferred_near: Option<Shape>,
    runner_up: Option<(Cost, Vec<HolderIx>)>,
}

impl Found {
    /// What was found for a gang seen as one replica.
    pub(crate) fn of_gang(self, need: Need, replicas: u32) -> Found {
        Found { on_one_node: Some(self.gang.0), gang: (need, replicas), ..self }
    }
}

type Set = (Cost, Vec<HolderIx>);

/// The cheapest victims within a scope that make room for the gang, and the next best.
pub(crate) fn find(
    question: &Question<'_>,
    reach: &Reach,
    gang: &Gang<'_>,
    scope: &Scope,
    at_most: Option<Cost>,
    search_well: bool,
) -> Option<Found> {
    let pools = pools_within(question, reach, &gang.need, scope);
    let start = Field::of(question, scope, nodes_of(question, &pools).into_iter());
    let replicas = u64::from(gang.replicas);
    let found = |cost, victims, runner_up| Found {
        cost,
        victims,
        scope: scope.clone(),
        gang: (gang.need, gang.replicas),
        on_one_node: None,
        preferred_near: gang.shape.same.filter(|same| !same.required).map(|_| gang.shape.clone()),
        runner_up,
    };
    if start.total >= replicas {
        return Some(found(Cost::default(), Vec::new(), None));
    }
    let mut search = Search { start, replicas, at_most, scratch: Scratch::default(), opening: Vec::new() };
    search.opening = opening_bids(&search.start, pools.iter().copied(), replicas, &mut search.scratch);
    let mut best = search.greedy(None);
    let leases = search.leases(&pools, if search_well { LEASES_MAX } else { 0 });
    if let Some(leases) = &leases
        && let Some(exact) = search.exact(leases.clone(), best.as_ref(), SETS_OF_ALL)
    {
        best = Some(exact);
    }
    let mut best = best?;
    let mut runner_up = search.runner_up(&mut best);
    if leases.is_none() && replicas > 1 {
        let mut core: Vec<HolderIx> = best.1.clone();
        core.extend(runner_up.iter().flat_map(|(_, victims)| victims).filter(|victim| !best.1.contains(victim)));
        if core.len() <= LEASES_MAX
            && let Some(exact) = search.exact(core, Some(&best), SETS_OF_NAMED)
        {
            runner_up = Some(std::mem::replace(&mut best, exact));
        }
    }
    Some(found(best.0, best.1, runner_up))
}

fn pools_within(question: &Question<'_>, reach: &Reach, need: &Need, scope: &Scope) -> Vec<PoolIx> {
    let fleet = &question.cluster.fleet;
    let fits = |pool: &PoolIx| reach.could_fit(*pool, need) && scope.admits(&fleet.pools[*pool]);
    match &scope.nodes {
        Some(nodes) => nodes.iter().flat_map(|&node| question.stakes.pools_of(node)).filter(fits).collect(),
        None => (0..fleet.pools.len()).filter(fits).collect(),
    }
}

/// The nodes of pools, each once; pools come in order of their nodes.
fn nodes_of(question: &Question<'_>, pools: &[PoolIx]) -> Vec<NodeIx> {
    let mut nodes: Vec<NodeIx> = pools.iter().map(|&pool| question.cluster.fleet.pools[pool].node).collect();
    nodes.dedup();
    nodes
}

/// The searches of one scope: all start from the same bids.
struct Search<'a> {
    start: Field<'a>,
    replicas: u64,
    at_most: Option<Cost>,
    scratch: Scratch,
    opening: Vec<Reverse<super::greedy::Bid>>,
}

impl Search<'_> {
    /// The better of both greedy orders, without whoever is not needed.
    fn greedy(&mut self, forbidden: Option<HolderIx>) -> Option<Set> {
        let orders = [By::PricePerReplica, By::Price];
        let many = self.replicas > 1 && self.opening.iter().any(|Reverse(bid)| bid.frees_many());
        let mut best: Option<Set> = None;
        for by in orders.into_iter().take(if many { 2 } else { 1 }) {
            let mut field = self.start.clone();
            field.forbidden.extend(forbidden);
            let mut rights = field.question.rights.clone();
            let (opening, most) = (&self.opening, self.at_most);
            let gathered = gather(&mut field, &mut rights, opening, by, self.replicas, most, &mut self.scratch);
            if let Some(chosen) = gathered {
                let set = self.prune(field, chosen);
                best = best.into_iter().chain([set]).min_by_key(|(cost, _)| *cost);
            }
        }
        best
    }

    /// Spares whoever is not needed, dearest first.
    fn prune(&self, mut field: Field<'_>, mut chosen: Vec<HolderIx>) -> Set {
        let question = field.question;
        let lease = |holder: HolderIx| question.stakes.holders[holder as usize].lease;
        chosen.sort_by_key(|&holder| Reverse((question.cost(holder), lease(holder))));
        chosen.retain(|&victim| {
            field.spare_holder(victim);
            let needed = field.total < self.replicas;
            if needed {
                field.evict(victim);
            }
            needed
        });
        (field.cost_of(&chosen), chosen)
    }

    /// Everyone who might go, if they are at most so many.
    fn leases(&self, pools: &[PoolIx], most: usize) -> Option<Vec<HolderIx>> {
        let question = self.start.question;
        let mut leases: Vec<HolderIx> = Vec::new();
        // A node's CPU may be held by leases on its other pools.
        let nodes = nodes_of(question, pools);
        for pool in nodes.into_iter().flat_map(|node| question.stakes.pools_of(node)) {
            let pool = &question.stakes.pools[pool];
            let sole = pool.sole.iter().map(|(holder, _)| *holder);
            let mixed = pool.mixed.iter().flat_map(|chip| chip.held.iter().map(|(holder, _)| *holder));
            for holder in sole.chain(mixed).filter(|&holder| question.admits(holder)) {
                if !leases.contains(&holder) {
                    leases.push(holder);
                }
            }
            if leases.len() > most {
                return None;
            }
        }
        Some(leases)
    }

    /// A cheaper set of these leases than the best known, if there is one and the job may take it.
    fn exact(&self, leases: Vec<HolderIx>, best: Option<&Set>, sets_max: usize) -> Option<Set> {
        let mut field = self.start.clone();
        let bound = best.map(|(cost, _)| *cost).or(self.at_most);
        let (cost, victims) = exact::cheapest(&mut field, leases, self.replicas, bound, sets_max)?;
        let question = self.start.question;
        let mut rights = question.rights.clone();
        let lease = |victim: &HolderIx| question.cluster.lease(question.stakes.holders[*victim as usize].lease);
        let may = victims.iter().all(|victim| lease(victim).is_some_and(|lease| rights.take(lease)));
        may.then_some((cost, victims))
    }

    /// The plan that does without the dearest victim. Should it be cheaper, it is the plan, and is tried in turn.
    fn runner_up(&mut self, best: &mut Set) -> Option<Set> {
        let question = self.start.question;
        let lease = |holder: HolderIx| question.stakes.holders[holder as usize].lease;
        let mut runner_up: Option<Set> = None;
        for _ in 0..BETTERED_MAX {
            let dearest = best.1.iter().copied().max_by_key(|&holder| (question.cost(holder), lease(holder)))?;
            let Some(other) = self.greedy(Some(dearest)) else { return runner_up };
            if other.0 < best.0 {
                runner_up = Some(std::mem::replace(best, other));
            } else {
                return runner_up.into_iter().chain([other]).min_by_key(|(cost, _)| *cost);
            }
        }
        runner_up
    }
}

/// Makes a plan of what was found, cheapest first: the first that gives the whole gang its chips.
pub(crate) fn settle(question: &Question<'_>, reach: &Reach, found: Vec<Found>) -> Option<Plan> {
    for at in 0..found.len() {
        let Some(placements) = assign(question, reach, &found[at]) else { continue };
        let victims = leases_of(question, &found[at].victims);
        let own = found[at].runner_up.iter().map(|(cost, holders)| (*cost, leases_of(question, holders)));
        let others = found[at + 1..].iter().map(|other| (other.cost, leases_of(question, &other.victims)));
        let runner_up = own.chain(others).filter(|(_, other)| *other != victims).min_by_key(|(cost, _)| *cost);
        let runner_up = runner_up.map(|(cost, leases)| (leases, cost));
        return Some(Plan { placements, victims, cost: found[at].cost, runner_up });
    }
    None
}

/// The leases of victims, with the extra replicas that go with them.
fn leases_of(question: &Question<'_>, victims: &[HolderIx]) -> BTreeSet<LeaseId> {
    let stakes = question.stakes;
    let with_extras = |&victim: &HolderIx| {
        let extras = stakes.bases[victim as usize].extras.iter().map(|extra| extra.lease);
        std::iter::once(stakes.holders[victim as usize].lease).chain(extras)
    };
    victims.iter().flat_map(with_extras).collect()
}

/// The chips of the gang once the victims are gone: the tightest pools first.
fn assign(question: &Question<'_>, reach: &Reach, found: &Found) -> Option<Vec<Placement>> {
    let cluster = question.cluster;
    let (need, replicas) = found.gang;
    let looked_for = found.on_one_node.unwrap_or(need);
    let as_asked = Question { rights: question.rights.clone(), admitted: question.admitted.clone(), ..*question };
    let as_asked = Question { need: looked_for, ..as_asked };
    let pools = pools_within(&as_asked, reach, &looked_for, &found.scope);
    let mut field = Field::of(&as_asked, &found.scope, std::iter::empty());
    field.total = u64::MAX / 2;
    found.victims.iter().for_each(|&victim| field.evict(victim));
    let fitting = pools.into_iter().filter_map(|pool| {
        let fits = field.chips_fit(pool).min(field.node_fit(cluster.fleet.pools[pool].node));
        (fits > 0).then(|| (field.left_over(pool), Reverse(fits), pool))
    });
    let mut fitting: Vec<(u32, Reverse<u64>, PoolIx)> = fitting.collect();
    fitting.sort_unstable();
    let mut room = Room::of(cluster);
    question.open.iter().for_each(|holder| room.open(holder));
    let mut emptied: BTreeSet<LeaseId> = leases_of(question, &found.victims);
    emptied.iter().filter_map(|lease| cluster.leases.get(lease)).for_each(|lease| room.empty(lease));
    let nodes: BTreeSet<NodeIx> = fitting.iter().map(|(.., pool)| cluster.fleet.pools[*pool].node).collect();
    if let Some(shape) = &found.preferred_near {
        nodes.iter().for_each(|&node| empty_leaving(question, &mut room, node, &mut emptied));
        let scope = Scope { nodes: Some(nodes), ..found.scope.clone() };
        return find_within(&room, shape, &scope);
    }
    let mut placements = Vec::new();
    for (_, Reverse(fits), pool) in fitting {
        empty_leaving(question, &mut room, cluster.fleet.pools[pool].node, &mut emptied);
        let here = if found.on_one_node.is_some() { u64::from(replicas) } else { fits };
        for _ in 0..here {
            if placements.len() == replicas as usize {
                return Some(placements);
            }
            let Some(placement) = room.take(pool, &need, placements.len() as u32) else { break };
            placements.push(placement);
        }
        if found.on_one_node.is_some() && placements.len() < replicas as usize {
            return None;
        }
    }
    (placements.len() == replicas as usize).then_some(placements)
}

/// Empties what is leaving a node anyway.
fn empty_leaving(question: &Question<'_>, room: &mut Room<'_>, node: NodeIx, emptied: &mut BTreeSet<LeaseId>) {
    for id in &question.cluster.fleet.nodes[node].leases {
        let stand = question.stakes.holder(*id).map(|holder| question.stakes.holders[holder as usize].stand);
        if stand == Some(Stand::Leaving)
            && emptied.insert(*id)
            && let Some(lease) = question.cluster.leases.get(id)
        {
            room.empty(lease);
        }
    }
}
