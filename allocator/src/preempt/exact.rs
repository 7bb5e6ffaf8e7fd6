//! Every set of few leases, by branch and bound: finds the cheapest set that makes room, or shows that none is cheaper
//! than the one known. Where the leases are many it looks only at those that good plans have named.

use super::field::Field;
use super::stakes::HolderIx;
use chiptide_model::Cost;

/// Most leases of which every set may be looked at.
pub(crate) const LEASES_MAX: usize = 16;
/// Most sets looked at where these are all the leases there are.
pub(crate) const SETS_OF_ALL: usize = 8192;
/// Most sets looked at of the leases that plans have named.
pub(crate) const SETS_OF_NAMED: usize = 256;

struct Search<'f, 'a> {
    field: &'f mut Field<'a>,
    leases: Vec<HolderIx>,
    replicas: u64,
    chosen: Vec<HolderIx>,
    best: Option<(Cost, Vec<HolderIx>)>,
    /// Only sets cheaper than this are of interest.
    bound: Option<Cost>,
    left: usize,
}

/// The cheapest set of these leases that makes room for the gang, if one is cheaper than `bound`. The field must have
/// nobody gone, and is left so.
pub(crate) fn cheapest(
    field: &mut Field<'_>,
    mut leases: Vec<HolderIx>,
    replicas: u64,
    bound: Option<Cost>,
    sets_max: usize,
) -> Option<(Cost, Vec<HolderIx>)> {
    let question = field.question;
    let order = |holder: &HolderIx| (question.cost(*holder), question.stakes.holders[*holder as usize].lease);
    leases.sort_by_key(order);
    leases.truncate(LEASES_MAX);
    let mut search = Search { field, leases, replicas, chosen: Vec::new(), best: None, bound, left: sets_max };
    search.from(0);
    search.best
}

impl Search<'_, '_> {
    /// Looks at every set that adds leases from `at` on to those chosen. Costs only grow, and so does room: a set that
    /// is dear enough, or does, is not added to; one that would not do with all the rest is given up.
    fn from(&mut self, at: usize) {
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        let cost = self.field.cost_of(&self.chosen);
        if self.bound.is_some_and(|bound| cost >= bound) {
            return;
        }
        if self.field.total >= self.replicas {
            self.bound = Some(cost);
            self.best = Some((cost, self.chosen.clone()));
            return;
        }
        let rest: Vec<HolderIx> = self.leases[at..].to_vec();
        rest.iter().for_each(|&holder| self.field.evict(holder));
        let would_do = self.field.total >= self.replicas;
        rest.iter().for_each(|&holder| self.field.spare_holder(holder));
        if !would_do {
            return;
        }
        for next in at..self.leases.len() {
            let holder = self.leases[next];
            // Those after it cost no less.
            if self.bound.is_some_and(|bound| cost.plus(self.field.question.cost(holder)) >= bound) {
                return;
            }
            self.field.evict(holder);
            self.chosen.push(holder);
            self.from(next + 1);
            self.chosen.pop();
            self.field.spare_holder(holder);
        }
    }
}
