//! The pending jobs, grouped by shape: jobs that ask for exactly the same.
//!
//! When one job of a shape cannot start, no other of that shape can, so a round tries a shape once, not each job;
//! and a shape that failed is not tried again until something it could use is freed.

use crate::quota::Rank;
use chiptide_model::{ChipDemand, DeviceClass, JobId, JobSpec, Kind, Millis, Same};
use rustc_hash::FxHashMap;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

/// Everything about a job that decides whether and where it can start.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Shape {
    /// Its queue: decides what it is owed, whom it may take from, and which windows of the calendar are open to it.
    pub queue: String,
    /// Whether its chips can be taken back: decides how much of others' guarantees it may borrow.
    pub preemptible: bool,
    /// Its priority: decides whom it may preempt.
    pub priority: i32,
    /// Training or inference: decides whether classes may mix.
    pub kind: Kind,
    /// Gang size.
    pub replicas: u32,
    /// Chips of one replica.
    pub demand: ChipDemand,
    /// CPU of one replica.
    pub cpu_milli: u64,
    /// Memory of one replica.
    pub memory_mib: u64,
    /// Acceptable classes, best first; empty means any.
    pub device_classes: Vec<DeviceClass>,
    /// Nearness.
    pub same: Option<Same>,
    /// How long a lease of it lasts at most, grace included: decides whether it ends before somebody's reservation
    /// begins. Rounded up a little, so that durations chosen freely do not make every job a shape of its own.
    pub stays_at_most: Option<Millis>,
}

impl Shape {
    /// The shape of a job.
    pub fn of(spec: &JobSpec) -> Shape {
        Shape {
            queue: spec.queue.clone(),
            preemptible: spec.preemptible,
            priority: spec.priority,
            kind: spec.kind,
            replicas: spec.gang(),
            demand: spec.demand,
            cpu_milli: spec.cpu_milli,
            memory_mib: spec.memory_mib,
            device_classes: spec.classes_by_speed(),
            same: spec.same,
            stays_at_most: spec.max_duration.map(|span| rounded_up(Millis(span.0.saturating_add(spec.grace.0)))),
        }
    }
}

/// The next of sixteen steps an octave: at most a sixteenth more.
fn rounded_up(span: Millis) -> Millis {
    let step = 1u64 << (u64::BITS - span.0.leading_zeros()).saturating_sub(5);
    Millis(span.0.div_ceil(step).saturating_mul(step))
}

#[derive(Clone, PartialEq, Debug)]
struct Line {
    shape: Shape,
    /// Waiting jobs by place.
    jobs: BTreeMap<u64, JobId>,
    /// The supply at which the shape last failed; trying again before it grows is useless.
    failed_at: Option<u64>,
}

/// All pending jobs that hold no promise.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    lines: Vec<Line>,
    by_shape: FxHashMap<Shape, usize>,
    /// Lines nobody waits in, to be used again: shapes come and go for as long as the daemon lives.
    spare: Vec<usize>,
    len: usize,
    /// Counts up whenever something is freed that any waiting job might use.
    supply: u64,
    /// The same for chips of one class.
    supply_of: Vec<(DeviceClass, u64)>,
}

impl PartialEq for Queue {
    /// Two queues are equal when the same jobs wait in the same order; what was tried before does not count.
    fn eq(&self, other: &Queue) -> bool {
        let waiting = |queue: &Queue| -> BTreeMap<u64, JobId> {
            queue.lines.iter().flat_map(|line| line.jobs.iter().map(|(place, job)| (*place, *job))).collect()
        };
        self.len == other.len && waiting(self) == waiting(other)
    }
}

impl Queue {
    /// How many jobs wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A job starts to wait at its place.
    pub fn insert(&mut self, spec: &JobSpec, place: u64, job: JobId) {
        let shape = Shape::of(spec);
        let at = match self.by_shape.get(&shape) {
            Some(&at) => at,
            None => self.new_line(shape),
        };
        if self.lines[at].jobs.insert(place, job).is_none() {
            self.len += 1;
        }
    }

    /// A job no longer waits.
    pub fn remove(&mut self, spec: &JobSpec, place: u64) {
        if let Some(&at) = self.by_shape.get(&Shape::of(spec))
            && self.lines[at].jobs.remove(&place).is_some()
        {
            self.len -= 1;
            if self.lines[at].jobs.is_empty() {
                self.by_shape.remove(&self.lines[at].shape);
                self.spare.push(at);
            }
        }
    }

    fn new_line(&mut self, shape: Shape) -> usize {
        let line = Line { shape: shape.clone(), jobs: BTreeMap::new(), failed_at: None };
        let at = match self.spare.pop() {
            Some(at) => {
                self.lines[at] = line;
                at
            }
            None => {
                self.lines.push(line);
                self.lines.len() - 1
            }
        };
        self.by_shape.insert(shape, at);
        at
    }

    /// Whether the job waits here.
    pub fn contains(&self, spec: &JobSpec, place: u64) -> bool {
        self.by_shape.get(&Shape::of(spec)).is_some_and(|&at| self.lines[at].jobs.contains_key(&place))
    }

    /// Grows whenever anything is freed.
    pub(crate) fn supply(&self) -> u64 {
        self.supply + self.supply_of.iter().map(|(_, supply)| supply).sum::<u64>()
    }

    /// Something was freed that any shape might use.
    pub fn supply_grew(&mut self) {
        self.supply += 1;
    }

    /// Chips of this class were freed.
    pub fn supply_grew_of(&mut self, class: &DeviceClass) {
        match self.supply_of.iter_mut().find(|(known, _)| known == class) {
            Some((_, supply)) => *supply += 1,
            None => self.supply_of.push((class.clone(), 1)),
        }
    }

    /// Grows whenever something is freed that the shape could use.
    fn supply_for(&self, shape: &Shape) -> u64 {
        let could_use = |class: &DeviceClass| shape.device_classes.is_empty() || shape.device_classes.contains(class);
        let classes = self.supply_of.iter().filter(|(class, _)| could_use(class));
        self.supply + classes.map(|(_, supply)| supply).sum::<u64>()
    }

    /// Marks the job's shape as tried in vain at the present supply.
    pub fn shape_failed(&mut self, shape: &Shape) {
        if let Some(&at) = self.by_shape.get(shape) {
            self.lines[at].failed_at = Some(self.supply_for(shape));
        }
    }

    /// Shapes worth trying, as a walk over their first jobs in order of service: by rank, then by place.
    pub(crate) fn walk(&self, rank: impl Fn(&Shape) -> Rank) -> Walk {
        let worth =
            |line: &Line| !line.jobs.is_empty() && line.failed_at.is_none_or(|at| at != self.supply_for(&line.shape));
        let lines = self.lines.iter().enumerate().filter(|(_, line)| worth(line));
        Walk { heads: lines.filter_map(|(at, line)| line.head(at, 0, rank(&line.shape))).collect() }
    }
}

impl Line {
    fn head(&self, at: usize, from: u64, rank: Rank) -> Option<Head> {
        let (&place, &job) = self.jobs.range(from..).next()?;
        Some((rank, Reverse(place), at, job))
    }
}

type Head = (Rank, Reverse<u64>, usize, JobId);

/// A walk over the waiting jobs in order of service. It holds no borrow: the queue may change while it goes on.
#[derive(Debug)]
pub(crate) struct Walk {
    heads: BinaryHeap<Head>,
}

impl Walk {
    /// The next job to try. The caller says with [`Walk::next_of_shape`] whether others of its shape are worth trying.
    /// What was granted meanwhile may have put its queue behind others: then its turn comes later.
    pub(crate) fn step(&mut self, queue: &Queue, rank: impl Fn(&Shape) -> Rank) -> Option<Step> {
        loop {
            let (known, Reverse(place), line, job) = self.heads.pop()?;
            let now = rank(&queue.lines[line].shape);
            let overtaken = self
                .heads
                .peek()
                .is_some_and(|(next, next_place, ..)| now < known && (next, *next_place) > (&now, Reverse(place)));
            if !overtaken {
                return Some(Step { job, line, place });
            }
            self.heads.push((now, Reverse(place), line, job));
        }
    }

    /// Goes on to the next job of the same shape.
    pub(crate) fn next_of_shape(&mut self, queue: &Queue, step: &Step, rank: impl Fn(&Shape) -> Rank) {
        let line = &queue.lines[step.line];
        self.heads.extend(line.head(step.line, step.place + 1, rank(&line.shape)));
    }
}

/// One job met on a walk.
#[derive(Debug)]
pub(crate) struct Step {
    /// The job.
    pub job: JobId,
    line: usize,
    place: u64,
}

impl Queue {
    /// The jobs that follow this one and ask for the same, at most so many.
    pub(crate) fn following(&self, step: &Step, most: usize) -> Vec<JobId> {
        self.lines[step.line].jobs.range(step.place + 1..).map(|(_, job)| *job).take(most).collect()
    }

    /// The shape of the job met at this step.
    pub(crate) fn shape(&self, step: &Step) -> &Shape {
        &self.lines[step.line].shape
    }
}

impl Queue {
    /// Every shape somebody waits in, with its jobs by place.
    pub(crate) fn shapes(&self) -> impl Iterator<Item = (&Shape, &BTreeMap<u64, JobId>)> {
        self.lines.iter().filter(|line| !line.jobs.is_empty()).map(|line| (&line.shape, &line.jobs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_span_is_rounded_up_by_a_sixteenth_at_most() {
        for span in [0, 1, 31, 32, 33, 59_999, 3_600_000, 3_630_000, u64::MAX / 2 + 1] {
            let rounded = rounded_up(Millis(span)).0;
            assert!(rounded >= span && rounded - span <= span / 16, "{span} became {rounded}");
        }
    }

    #[test]
    fn shapes_that_come_and_go_take_no_room() {
        let spec = |cpu_milli: u64| -> JobSpec {
            let json = format!(
                r#"{{"kind": "training", "name": "a", "queue": "q", "priority": 0, "replicas": 1, "demand": {{"chips": 1}},
                    "cpu_milli": {cpu_milli}, "memory_mib": 0, "preemptible": true, "grace": "0s"}}"#
            );
            serde_json::from_str(&json).expect("a spec")
        };
        let mut queue = Queue::default();
        for place in 0..1000 {
            queue.insert(&spec(place), place, JobId(Uuid::nil()));
            queue.remove(&spec(place), place);
        }
        assert_eq!((queue.lines.len(), queue.by_shape.len(), queue.len()), (1, 0, 0));
    }
}
