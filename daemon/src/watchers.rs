//! Who waits for which job or node to change, so that a round wakes those and nobody else.

use chiptide_allocator::Touched;
use chiptide_model::{JobId, NodeId};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::sync::Arc;
use tokio::sync::Notify;

/// What one can wait for.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Topic {
    /// A job's revision.
    Job(JobId),
    /// A node's orders.
    Node(NodeId),
}

/// Waiters by topic. A topic lives as long as somebody waits for it.
#[derive(Debug, Default)]
pub struct Watchers {
    topics: Mutex<FxHashMap<Topic, Arc<Notify>>>,
}

/// A registration; register *before* looking at the state, so that no change falls in between.
#[derive(Debug)]
pub struct Watch<'a> {
    watchers: &'a Watchers,
    topic: Topic,
    notify: Arc<Notify>,
}

impl Watchers {
    /// Registers for the next change of a topic.
    pub fn watch(&self, topic: Topic) -> Watch<'_> {
        let notify = self.topics.lock().entry(topic.clone()).or_default().clone();
        Watch { watchers: self, topic, notify }
    }

    /// Wakes everyone who waits for something that was touched.
    pub fn wake(&self, touched: &Touched) {
        let topics = self.topics.lock();
        let wake = |topic: Topic| topics.get(&topic).into_iter().for_each(|notify| notify.notify_waiters());
        touched.jobs.iter().chain(touched.ended_jobs.keys()).for_each(|job| wake(Topic::Job(*job)));
        touched.nodes_to_wake().for_each(|node| wake(Topic::Node(node.clone())));
    }

    /// Wakes everyone who waits for a node's orders.
    pub fn wake_node(&self, node: &NodeId) {
        let topics = self.topics.lock();
        topics.get(&Topic::Node(node.clone())).into_iter().for_each(|notify| notify.notify_waiters());
    }

    /// Wakes everyone, to look for themselves.
    pub fn wake_all(&self) {
        self.topics.lock().values().for_each(|notify| notify.notify_waiters());
    }
}

impl Watch<'_> {
    /// A future that completes at the next change after this call, even if first polled later.
    pub fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.notify.notified()
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let mut topics = self.watchers.topics.lock();
        // The map and this watch hold one reference each; any further one is another waiter's.
        if Arc::strong_count(&self.notify) <= 2 {
            topics.remove(&self.topic);
        }
    }
}
