//! What must hold in every state. Numbered as in DESIGN.md; each is recounted from the state alone.

use crate::ledger::{JOBS, Job, NODES, Row};
use crate::world::{Protocol, World};
use stateright::Property;

/// All of them.
pub fn all() -> Vec<Property<Protocol>> {
    vec![
        Property::always(ONE_LEASE, |_, world: &World| one_lease_a_chip(world)),
        Property::always(HOLDER_ONLY, |_, world: &World| only_the_holder(world)),
        Property::always(EPOCHS_GROW, |_, world: &World| epochs_grow(world)),
        Property::always(WHOLE_GANG, |protocol: &Protocol, world: &World| whole_gangs(protocol, world)),
        Property::always(ACCOUNTED, |_, world: &World| jobs_are_accounted(world)),
        Property::always(FREE_IS_VACANT, |_, world: &World| free_is_vacant(world)),
    ]
}

/// I1, on the machine itself.
pub const ONE_LEASE: &str = "I1 what runs on a chip belongs to one lease";
/// I2.
pub const HOLDER_ONLY: &str = "I2 a chip that its node has confirmed runs its holder's work only";
/// I3.
pub const EPOCHS_GROW: &str = "I3 a confirmed lease has the highest epoch that its node has seen";
/// I4.
pub const WHOLE_GANG: &str = "I4 a gang holds all or nothing";
/// I5, as far as one state tells.
pub const ACCOUNTED: &str = "I5 a job and the chips of its lease agree";
/// What L4 is for.
pub const FREE_IS_VACANT: &str = "F a chip that is free in the ledger is vacant";
/// From every state, without another fault, both jobs can finish and everything be free.
pub const RECOVERS: &str = "R from every state the end can be reached";

fn one_lease_a_chip(world: &World) -> bool {
    world.nodes.iter().all(|node| match node.procs {
        [Some(one), Some(other)] => one.lease == other.lease,
        _ => true,
    })
}

/// After a failover the work of a forgotten grant may still be ending while its chip's next lease is confirmed; that
/// lease's own work waits for it (I1).
fn only_the_holder(world: &World) -> bool {
    world.failed_over
        || NODES.into_iter().all(|n| match world.ledger.rows[n].hold {
            Some(hold) if hold.confirmed && !hold.ended => {
                world.nodes[n].running().all(|proc| proc.lease == hold.lease)
            }
            _ => true,
        })
}

fn epochs_grow(world: &World) -> bool {
    NODES.into_iter().all(|n| match (world.ledger.rows[n].hold, world.nodes[n].seen) {
        // A disk that was lost has seen nothing, and orders on their way have not been seen.
        (Some(hold), Some((epoch, lease))) if hold.confirmed => {
            epoch < hold.epoch || (epoch == hold.epoch && lease == hold.lease)
        }
        _ => true,
    })
}

fn whole_gangs(protocol: &Protocol, world: &World) -> bool {
    let is_gang = |job: u8| job == 1 || protocol.bounds.two_gangs;
    let live = |row: &Row, lease: u8| row.hold.is_some_and(|hold| hold.lease == lease && !hold.ended);
    JOBS.into_iter().filter(|job| is_gang(*job)).all(|job| match world.ledger.jobs[usize::from(job)].lease() {
        Some(lease) => world.ledger.rows.iter().all(|row| live(row, lease)),
        None => true,
    }) && world
        .ledger
        .rows
        .iter()
        .filter_map(|row| row.hold)
        .filter(|hold| !hold.ended && is_gang(hold.job))
        .all(|hold| world.ledger.rows.iter().all(|row| live(row, hold.lease)))
}

fn jobs_are_accounted(world: &World) -> bool {
    let rows = &world.ledger.rows;
    let live = |row: &Row, lease: u8| row.hold.filter(|hold| hold.lease == lease && !hold.ended);
    let jobs_have_leases = JOBS.into_iter().all(|job| match world.ledger.jobs[usize::from(job)] {
        Job::Pending | Job::Done => true,
        Job::Leased(lease) => rows.iter().any(|row| live(row, lease).is_some()),
        Job::Running(lease) => {
            rows.iter().any(|row| live(row, lease).is_some())
                && rows.iter().filter_map(|row| live(row, lease)).all(|hold| hold.confirmed)
        }
    });
    let leases_have_jobs = rows
        .iter()
        .filter_map(|row| row.hold)
        .filter(|hold| !hold.ended)
        .all(|hold| world.ledger.jobs[usize::from(hold.job)].lease() == Some(hold.lease));
    jobs_have_leases && leases_have_jobs
}

/// A failover may forget a grant, and the chip is free in the ledger before its node is asked: then I2 and this are not asked for.
fn free_is_vacant(world: &World) -> bool {
    world.failed_over
        || NODES.into_iter().all(|n| {
            let node = &world.nodes[n];
            world.ledger.rows[n].hold.is_some()
                || (node.running().next().is_none() && node.start.is_none() && node.ghost.is_none())
        })
}

/// Whether everything is over.
pub fn is_over(world: &World) -> bool {
    world.ledger.jobs == [Job::Done; 2]
        && world.ledger.rows.iter().all(|row| row.hold.is_none())
        && world.nodes.iter().all(|node| node.running().next().is_none() && node.start.is_none())
}
