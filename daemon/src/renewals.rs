//! Renewals of fenced leases. A report renews them only if this daemon was found to lead *after* the report had come: a
//! deposed leader that went on acknowledging from memory would keep alive what its successor has called ended. One look at
//! Postgres answers everybody who waits; nodes without fenced leases never ask.

use crate::role::Role;
use crate::store::leader::{self, Leadership};
use chiptide_allocator::Cluster;
use chiptide_allocator::fleet::Node;
use sqlx::PgPool;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

/// Most reports that wait for the same look.
const WAITING_MAX: usize = 10_000;
/// A look that takes longer renews nobody.
const LOOK_LIMIT: Duration = Duration::from_secs(3);

/// Where reports ask.
#[derive(Clone, Debug)]
pub struct Renewals {
    asks: mpsc::Sender<oneshot::Sender<bool>>,
}

/// The other end.
#[derive(Debug)]
pub struct Asked(mpsc::Receiver<oneshot::Sender<bool>>);

impl Renewals {
    /// The way in, and the other end for the one who leads. Until somebody looks, nothing is renewed.
    pub fn channel() -> (Renewals, Asked) {
        let (asks, asked) = mpsc::channel(WAITING_MAX);
        (Renewals { asks }, Asked(asked))
    }

    /// Whether this daemon leads, looked up after this call. False as well when nobody can tell.
    pub async fn confirm(&self) -> bool {
        let (reply, answer) = oneshot::channel();
        self.asks.try_send(reply).is_ok() && answer.await.unwrap_or(false)
    }
}

impl Asked {
    /// Answers whoever asks until nobody can any more, over one connection of `pool`: whether the leadership that `role`
    /// has at this moment, of this `instance`, is still the one in Postgres.
    pub async fn answer(mut self, pool: PgPool, instance: Uuid, role: Arc<Role>) {
        while let Some(first) = self.0.recv().await {
            let mut waiting = vec![first];
            while let Ok(next) = self.0.try_recv() {
                waiting.push(next);
            }
            let look = async {
                match role.epoch() {
                    Some(epoch) => leader::leads(&pool, Leadership { instance, epoch }).await,
                    None => Ok(false),
                }
            };
            let leads = match tokio::time::timeout(LOOK_LIMIT, look).await {
                Ok(Ok(leads)) => leads,
                Ok(Err(error)) => {
                    tracing::warn!(%error, reports = waiting.len(), "look whether this daemon leads; nothing is renewed");
                    false
                }
                Err(_) => {
                    tracing::warn!(
                        reports = waiting.len(),
                        "whether this daemon leads is not answered; nothing is renewed"
                    );
                    false
                }
            };
            for reply in waiting {
                // A report that has gone away needs no answer.
                let _ = reply.send(leads);
            }
        }
    }
}

/// Whether a node carries a lease that it ends by itself when it is cut off.
pub fn is_fenced(cluster: &Cluster, node: &Node) -> bool {
    let live = node.leases.iter().filter_map(|id| cluster.lease(*id)).filter(|lease| lease.is_live());
    live.filter_map(|lease| cluster.job(lease.job)).any(|job| job.spec.on_node_loss.fence().is_some())
}
