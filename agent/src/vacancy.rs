//! When a chip counts as proven vacant of an ended lease. Pure: an order, when it arrived, what else is ordered, and a
//! reading go in; a proof or the reason why there is none comes out. Anything unreadable is not proven.

use crate::reading::NodeReading;
use chiptide_api::node::{HealthBody, OrdersView, VacateOrder};
use std::collections::BTreeSet;
use std::fmt;
use tokio::time::Instant;
use uuid::Uuid;

/// Why a chip is not proven vacant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NotProven {
    /// The newest reading was begun before the order arrived.
    NoReadingSince,
    /// The node's reading does not list the chip.
    Missing,
    /// The chip is not healthy, so what it says proves nothing.
    NotHealthy(String),
    /// The driver's list of processes could not be read.
    NoProcessList,
    /// Something of the lease may still run on this node.
    StillRunning,
    /// A process is on the chip that no other live lease accounts for.
    InUse(u32),
    /// More memory is in use than when the chip is idle (absent: unreadable), and how much may be.
    NotIdle {
        /// In use, MiB.
        used_mib: Option<u64>,
        /// Allowed, MiB.
        allowed_mib: u64,
    },
    /// Too few readings in a row agree so far.
    Unsettled,
    /// A process that no other live lease accounts for has the chip's device node open.
    Held(u32),
    /// Who has the chip's device node open cannot be read.
    NoHolderList(String),
}

impl fmt::Display for NotProven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NotProven::NoReadingSince => f.write_str("no reading since the order arrived"),
            NotProven::Missing => f.write_str("the chip is not there"),
            NotProven::NotHealthy(detail) => write!(f, "the chip is not healthy: {detail}"),
            NotProven::NoProcessList => f.write_str("its processes cannot be listed"),
            NotProven::StillRunning => f.write_str("its workload is not gone yet"),
            NotProven::InUse(pid) => write!(f, "process {pid} is on it"),
            NotProven::NotIdle { used_mib: Some(used), allowed_mib } => {
                write!(f, "{used} MiB of its memory are in use, more than the {allowed_mib} MiB of an idle chip")
            }
            NotProven::NotIdle { used_mib: None, .. } => f.write_str("its memory in use cannot be read"),
            NotProven::Unsettled => f.write_str("too few readings in a row agree so far"),
            NotProven::Held(pid) => write!(f, "process {pid} has its device node open"),
            NotProven::NoHolderList(error) => write!(f, "who has its device node open cannot be read: {error}"),
        }
    }
}

/// Whether `reading` proves that nothing of `order`'s lease is left on its chip. `arrived` is when the order came, `orders`
/// everything ordered of the node now: live leases that share the chip may have processes there, nobody else may.
pub fn prove(
    order: &VacateOrder,
    arrived: Instant,
    orders: &OrdersView,
    reading: &NodeReading,
) -> Result<(), NotProven> {
    is_clear(&order.chip, order.lease, arrived, orders, reading)
}

/// Whether `reading`, taken after `since`, shows nothing on a chip but what live leases other than `lease` account for.
pub fn is_clear(
    chip: &str,
    lease: Uuid,
    since: Instant,
    orders: &OrdersView,
    reading: &NodeReading,
) -> Result<(), NotProven> {
    if reading.taken <= since {
        return Err(NotProven::NoReadingSince);
    }
    let now = reading.chip(chip).ok_or(NotProven::Missing)?;
    match &now.chip.health {
        HealthBody::Healthy => {}
        HealthBody::Unreadable { detail } | HealthBody::Unhealthy { detail } => {
            return Err(NotProven::NotHealthy(detail.clone()));
        }
    }
    let processes = now.reading.processes.as_ref().ok_or(NotProven::NoProcessList)?;
    let sharers = sharers(chip, lease, orders);
    let accounted = |pid: &u32| now.owners.get(pid).is_some_and(|lease| sharers.contains(lease));
    match processes.iter().map(|process| process.pid).find(|pid| !accounted(pid)) {
        Some(pid) => Err(NotProven::InUse(pid)),
        None => Ok(()),
    }
}

/// The other live leases that hold the chip.
pub fn sharers(chip: &str, lease: Uuid, orders: &OrdersView) -> BTreeSet<Uuid> {
    let holds = |chips: &[chiptide_api::node::ChipOrder]| chips.iter().any(|held| held.chip == chip);
    orders.leases.iter().filter(|live| live.lease != lease && holds(&live.chips)).map(|live| live.lease).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::{chip, lease, reading_at, vacate};
    use std::time::Duration;

    const ENDED: u128 = 1;
    const SHARER: u128 = 2;
    const STRANGER: u128 = 3;

    fn proof(live: &[u128], chip: crate::ChipNow) -> Result<(), NotProven> {
        let arrived = Instant::now();
        let leases = live.iter().map(|id| lease(*id, "c0", 7)).collect();
        let orders = OrdersView { leases, vacate: vec![vacate(ENDED, "c0", 6)], ..OrdersView::default() };
        prove(&orders.vacate[0], arrived, &orders, &reading_at(arrived + Duration::from_millis(1), [chip]))
    }

    #[test]
    fn a_chip_of_nobody_must_be_empty() {
        assert_eq!(proof(&[], chip("c0")), Ok(()));
        assert_eq!(proof(&[], chip("c0").running(9, None)), Err(NotProven::InUse(9)));
        assert_eq!(proof(&[], chip("c0").running(9, Some(SHARER))), Err(NotProven::InUse(9)), "not a live lease here");
    }

    #[test]
    fn a_shared_chip_may_run_only_what_its_other_live_leases_own() {
        assert_eq!(proof(&[SHARER], chip("c0")), Ok(()));
        assert_eq!(proof(&[SHARER], chip("c0").running(9, Some(SHARER))), Ok(()));
        let both = chip("c0").running(9, Some(SHARER)).running(10, Some(ENDED));
        assert_eq!(proof(&[SHARER], both), Err(NotProven::InUse(10)));
        assert_eq!(proof(&[SHARER], chip("c0").running(9, None)), Err(NotProven::InUse(9)), "whose, nobody knows");
        assert_eq!(proof(&[SHARER], chip("c0").running(9, Some(STRANGER))), Err(NotProven::InUse(9)));
        assert_eq!(
            proof(&[ENDED], chip("c0").running(9, Some(ENDED))),
            Err(NotProven::InUse(9)),
            "its own never count"
        );
    }

    #[test]
    fn what_cannot_be_read_is_never_empty() {
        let not_healthy = |result| matches!(result, Err(NotProven::NotHealthy(_)));
        assert!(not_healthy(proof(&[], chip("c0").unreadable())));
        assert!(not_healthy(proof(&[], chip("c0").lost())));
        let mut blind = chip("c0");
        blind.reading.processes = None;
        assert_eq!(proof(&[], blind), Err(NotProven::NoProcessList));
        assert_eq!(proof(&[], chip("c1")), Err(NotProven::Missing));
    }

    #[test]
    fn a_reading_from_before_the_order_proves_nothing() {
        let arrived = Instant::now();
        let orders = OrdersView { vacate: vec![vacate(ENDED, "c0", 6)], ..OrdersView::default() };
        let told = prove(&orders.vacate[0], arrived, &orders, &reading_at(arrived, [chip("c0")]));
        assert_eq!(told, Err(NotProven::NoReadingSince));
    }
}
