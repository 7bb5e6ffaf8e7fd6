//! Explores a model whole, breadth first, in one thread and in a fixed order: the first violation found is a shortest one,
//! and the same every time. What a checker of single states cannot say is asked of the finished graph: can the end be
//! reached from everywhere, and in how many steps?

use rustc_hash::FxHashMap;
use stateright::{Expectation, Model};
use std::hash::Hash;

/// What was found.
#[derive(Clone, Debug)]
pub struct Explored<A> {
    /// Different states met.
    pub states: usize,
    /// Steps between them.
    pub steps: usize,
    /// A property that does not hold, and the shortest way to where it does not.
    pub violation: Option<(&'static str, Vec<A>)>,
    /// The shortest way to a state from which the end cannot be reached.
    pub stuck: Option<Vec<A>>,
    /// The most steps that the end is away from anywhere.
    pub furthest: usize,
}

/// Explores up to `states_max` states; `None` where there are more and none of those violates a property. `end` says what
/// must stay within reach, and whether a step counts on the way there; without, only the properties are checked.
pub fn explore<M>(model: &M, states_max: usize, end: Option<&End<'_, M>>) -> Option<Explored<M::Action>>
where
    M: Model,
    M::State: Copy + Eq + Hash,
    M::Action: Copy,
{
    let properties = model.properties();
    let always = properties.iter().filter(|property| matches!(property.expectation, Expectation::Always));
    let always: Vec<_> = always.collect();
    let mut graph = Graph { states: Vec::new(), known: FxHashMap::default(), came: Vec::new() };
    for state in model.init_states() {
        graph.meet(state, None);
    }
    // One run of successors a state, in the order of `states`.
    let (mut successors, mut begins): (Vec<u32>, Vec<usize>) = (Vec::new(), vec![0]);
    let (mut at, mut steps, mut actions) = (0, 0, Vec::new());
    while at < graph.states.len() {
        let state = graph.states[at];
        if let Some(broken) = always.iter().find(|property| !(property.condition)(model, &state)) {
            let violation = Some((broken.name, graph.way_to(at)));
            return Some(Explored { states: graph.states.len(), steps, violation, stuck: None, furthest: 0 });
        }
        if graph.states.len() > states_max {
            return None;
        }
        actions.clear();
        model.actions(&state, &mut actions);
        for &action in &actions {
            let Some(next) = model.next_state(&state, action) else { continue };
            steps += 1;
            let next = graph.meet(next, Some((at as u32, action)));
            if end.is_some_and(|end| (end.counts)(&action)) {
                successors.push(next);
            }
        }
        begins.push(successors.len());
        at += 1;
    }
    let (stuck, furthest) = match end {
        None => (None, 0),
        Some(end) => {
            let is_end = |state: &M::State| (end.is_end)(state);
            let far = distances(&graph.states, &successors, &begins, is_end);
            let stuck = far.iter().position(|far| *far == u32::MAX).map(|at| graph.way_to(at));
            (stuck, far.into_iter().filter(|far| *far != u32::MAX).max().unwrap_or(0) as usize)
        }
    };
    Some(Explored { states: graph.states.len(), steps, violation: None, stuck, furthest })
}

/// What must stay within reach.
#[allow(missing_debug_implementations)]
pub struct End<'a, M: Model> {
    /// Whether a state is it.
    pub is_end: &'a dyn Fn(&M::State) -> bool,
    /// Whether a step may be counted on.
    pub counts: &'a dyn Fn(&M::Action) -> bool,
}

struct Graph<S, A> {
    states: Vec<S>,
    known: FxHashMap<S, u32>,
    /// From where, and by which step, each was met first.
    came: Vec<Option<(u32, A)>>,
}

impl<S: Copy + Eq + Hash, A: Copy> Graph<S, A> {
    fn meet(&mut self, state: S, from: Option<(u32, A)>) -> u32 {
        let next = self.states.len() as u32;
        let at = *self.known.entry(state).or_insert(next);
        if at == next {
            self.states.push(state);
            self.came.push(from);
        }
        at
    }

    fn way_to(&self, at: usize) -> Vec<A> {
        let mut way: Vec<A> =
            std::iter::successors(self.came[at], |(from, _)| self.came[*from as usize]).map(|(_, by)| by).collect();
        way.reverse();
        way
    }
}

/// How many steps each state is from the nearest end; `u32::MAX` where there is no way.
fn distances<S>(states: &[S], successors: &[u32], begins: &[usize], is_end: impl Fn(&S) -> bool) -> Vec<u32> {
    let mut indegree = vec![0_u32; states.len() + 1];
    successors.iter().for_each(|next| indegree[*next as usize + 1] += 1);
    for at in 1..indegree.len() {
        indegree[at] += indegree[at - 1];
    }
    let (mut predecessors, mut fill) = (vec![0_u32; successors.len()], indegree.clone());
    for at in 0..states.len() {
        for next in &successors[begins[at]..begins[at + 1]] {
            let place = &mut fill[*next as usize];
            predecessors[*place as usize] = at as u32;
            *place += 1;
        }
    }
    let mut far = vec![u32::MAX; states.len()];
    let mut reached: Vec<u32> = (0..states.len() as u32).filter(|at| is_end(&states[*at as usize])).collect();
    reached.iter().for_each(|at| far[*at as usize] = 0);
    let mut next = 0;
    while next < reached.len() {
        let at = reached[next] as usize;
        next += 1;
        for before in &predecessors[indegree[at] as usize..indegree[at + 1] as usize] {
            if far[*before as usize] == u32::MAX {
                far[*before as usize] = far[at] + 1;
                reached.push(*before);
            }
        }
    }
    far
}
