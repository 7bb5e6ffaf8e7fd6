//! Readers of workloads' output, and the agents that answer them. A reader's wish goes out with its node's orders; the
//! agent brings the bytes. Nothing is kept: a chunk lives from the agent's request to the reader's answer, and there are
//! at most so many readers at a time.

use chiptide_api::logs::{LogAnswer, LogOrder};
use chiptide_model::NodeId;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use tokio::sync::oneshot;

/// Most readers at a time: of one node, and in all. Each may hold one chunk.
const READERS_OF_NODE_MAX: usize = 32;
const READERS_MAX: usize = 512;

/// What an agent brought: what it says of the bytes, and the bytes.
pub type Brought = (LogAnswer, Vec<u8>);

/// Everybody who waits for output.
#[derive(Debug, Default)]
pub struct LogDesk {
    desk: Mutex<Desk>,
}

#[derive(Debug, Default)]
struct Desk {
    last: u64,
    nodes: FxHashMap<NodeId, Readers>,
    readers: usize,
}

#[derive(Debug, Default)]
struct Readers {
    /// The last request of the node: it makes the node's orders differ from those before it.
    revision: u64,
    waiting: BTreeMap<u64, (LogOrder, oneshot::Sender<Brought>)>,
}

/// A reader's place. Its wish is withdrawn when this is dropped.
#[derive(Debug)]
pub struct Place<'a> {
    desk: &'a LogDesk,
    node: NodeId,
    request: u64,
    answer: oneshot::Receiver<Brought>,
}

/// There are too many readers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

impl LogDesk {
    /// Takes a reader in. The node must be woken afterwards: its orders now hold the wish. `order.request` is given here.
    pub fn ask(&self, node: &NodeId, mut order: LogOrder) -> Result<Place<'_>, Full> {
        let mut desk = self.desk.lock();
        let of_node = desk.nodes.get(node).map_or(0, |readers| readers.waiting.len());
        if desk.readers >= READERS_MAX || of_node >= READERS_OF_NODE_MAX {
            return Err(Full);
        }
        desk.last += 1;
        let request = desk.last;
        order.request = request;
        let (sender, answer) = oneshot::channel();
        let readers = desk.nodes.entry(node.clone()).or_default();
        readers.revision = request;
        readers.waiting.insert(request, (order, sender));
        desk.readers += 1;
        Ok(Place { desk: self, node: node.clone(), request, answer })
    }

    /// Hands over what an agent brought. False when nobody waits for it any more.
    pub fn bring(&self, node: &NodeId, brought: Brought) -> bool {
        let sender = {
            let mut desk = self.desk.lock();
            let sender = desk.nodes.get_mut(node).and_then(|readers| readers.waiting.remove(&brought.0.request));
            desk.readers -= usize::from(sender.is_some());
            sender
        };
        sender.is_some_and(|(_, sender)| sender.send(brought).is_ok())
    }

    /// What is waited for of a node.
    pub fn wanted(&self, node: &NodeId) -> Vec<LogOrder> {
        let desk = self.desk.lock();
        let waiting = desk.nodes.get(node).into_iter().flat_map(|readers| readers.waiting.values());
        waiting.map(|(order, _)| order.clone()).collect()
    }

    /// Grows with every wish of a node; 0 for one of which nothing was ever wished.
    pub fn revision(&self, node: &NodeId) -> u64 {
        self.desk.lock().nodes.get(node).map_or(0, |readers| readers.revision)
    }
}

impl Place<'_> {
    /// What the agent brings; `None` when the daemon forgets the wish first.
    pub async fn brought(&mut self) -> Option<Brought> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut desk = self.desk.desk.lock();
        let gone = desk.nodes.get_mut(&self.node).and_then(|readers| readers.waiting.remove(&self.request));
        desk.readers -= usize::from(gone.is_some());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chiptide_api::logs::LogStream;
    use uuid::Uuid;

    fn order() -> LogOrder {
        let (lease, wait) = (Uuid::nil(), Default::default());
        LogOrder { request: 0, lease, rank: 0, stream: LogStream::Stdout, offset: 0, tail: None, wait }
    }

    fn brought(request: u64) -> Brought {
        (LogAnswer { session: Uuid::nil(), request, found: true, offset: 0, over: false }, vec![0xff, 0])
    }

    #[tokio::test]
    async fn what_an_agent_brings_goes_to_whoever_asked_and_to_nobody_else() {
        let (desk, node, other) =
            (LogDesk::default(), NodeId::new("n1").expect("a name"), "n2".parse().expect("a name"));
        let mut place = desk.ask(&node, order()).expect("room");
        let wanted = desk.wanted(&node);
        assert_eq!((wanted.len(), desk.revision(&node)), (1, wanted[0].request));
        assert!(!desk.bring(&other, brought(wanted[0].request)), "another node cannot answer for it");
        assert!(desk.bring(&node, brought(wanted[0].request)));
        assert_eq!(place.brought().await.map(|(_, bytes)| bytes), Some(vec![0xff, 0]));
        assert!(!desk.bring(&node, brought(wanted[0].request)), "once");
    }

    #[test]
    fn a_reader_that_leaves_makes_room() {
        let (desk, node) = (LogDesk::default(), NodeId::new("n1").expect("a name"));
        let mut places: Vec<Place<'_>> =
            (0..READERS_OF_NODE_MAX).map(|_| desk.ask(&node, order()).expect("room")).collect();
        assert_eq!(desk.ask(&node, order()).err(), Some(Full));
        let before = desk.revision(&node);
        places.pop();
        assert!(desk.ask(&node, order()).is_ok() && desk.revision(&node) > before);
        drop(places);
        assert!(desk.wanted(&node).is_empty());
    }
}
