//! Every invariant broken on purpose: the recount must see each.

use super::world::{HIGH, LOW, World, chips, job, world};
use crate::{Cluster, check};
use chiptide_model::{JobState, LeaseState, Slots, Timestamp};

/// A world with everything in it: a running gang, a share, a victim under notice, a promise, a waiting job, a chip that
/// is being vacated, and a queue with a limit.
fn full() -> World {
    let mut world = world()
        .node("n1", 4)
        .node("n2", 4)
        .queue("default", |queue| queue.limit = chips(8))
        .lease(job("gang").chips(2).replicas(2).with(|spec| spec.preemptible = false))
        .lease(job("share").share(300).with(|spec| spec.preemptible = false))
        .lease(job("victim").priority(LOW).chips(2))
        .lease(job("leaver"));
    world.submit(job("chat").chips(2).priority(HIGH)).expect("accepted");
    world.submit(job("waiter").chips(4)).expect("accepted");
    world.done("leaver");
    assert_eq!(world.draft.claims.len(), 1);
    assert_eq!((world.draft.queue.len(), world.draft.vacating), (1, 1));
    world
}

/// Breaks a sound cluster and says which invariants the recount finds broken.
fn found(damage: impl FnOnce(&mut Cluster, &World)) -> Vec<&'static str> {
    let world = full();
    let mut cluster = world.draft.clone();
    damage(&mut cluster, &world);
    let mut found: Vec<&str> = check(&cluster).into_iter().map(|violation| violation.invariant).collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn held_by<'a>(cluster: &'a mut Cluster, world: &World, name: &str) -> &'a mut crate::fleet::Chip {
    let job = world.job_id(name);
    cluster.fleet.chips.iter_mut().find(|chip| chip.holds.iter().any(|hold| hold.job == job)).expect("a held chip")
}

#[test]
fn a_sound_cluster_has_nothing_wrong() {
    assert_eq!(found(|_, _| {}), Vec::<&str>::new());
}

#[test]
fn a_slot_held_twice() {
    let broken = found(|cluster, world| {
        let chip = held_by(cluster, world, "share");
        let twice = chip.holds[0].clone();
        chip.holds.push(twice);
    });
    assert!(broken.contains(&"I1"), "{broken:?}");
}

#[test]
fn a_slot_promised_twice() {
    let broken = found(|cluster, world| {
        let chat = world.job_id("chat");
        let chip = cluster.fleet.chips.iter_mut().find(|chip| !chip.claims.is_empty()).expect("a promised chip");
        chip.claims.push((chat, vec![Slots::WHOLE]));
    });
    assert!(broken.contains(&"I1"), "{broken:?}");
}

#[test]
fn an_epoch_that_went_back() {
    let broken = found(|cluster, world| held_by(cluster, world, "gang").epoch = 0);
    assert!(broken.contains(&"I3"), "{broken:?}");
}

#[test]
fn half_a_gang() {
    let broken = found(|cluster, world| {
        let lease = world.lease_of("gang").expect("leased");
        cluster.leases.get_mut(&lease).expect("the lease").placements.pop();
    });
    assert!(broken.contains(&"I4"), "{broken:?}");
}

#[test]
fn an_extra_replica_of_a_job_that_is_not_elastic() {
    let broken = found(|cluster, world| {
        let (job, lease) = (world.job_id("gang"), world.lease_of("share").expect("leased"));
        cluster.jobs.get_mut(&job).expect("the job").extras.insert(lease);
    });
    assert!(broken.contains(&"I4"), "{broken:?}");
}

#[test]
fn a_gang_short_of_a_chip() {
    let broken = found(|cluster, world| held_by(cluster, world, "gang").holds.clear());
    assert!(broken.contains(&"I4"), "{broken:?}");
}

#[test]
fn a_job_in_two_states() {
    let waiting = found(|cluster, world| {
        let id = world.job_id("gang");
        let job = cluster.jobs.get(&id).expect("the job").clone();
        cluster.queue.insert(&job.spec, job.place, id);
    });
    let lost = found(|cluster, world| {
        let id = world.job_id("waiter");
        let job = cluster.jobs.get(&id).expect("the job").clone();
        cluster.queue.remove(&job.spec, job.place);
    });
    let leaseless = found(|cluster, world| {
        let id = world.job_id("gang");
        cluster.jobs.get_mut(&id).expect("the job").state = JobState::Pending;
    });
    let orphan = found(|cluster, world| drop(cluster.jobs.remove(&world.job_id("gang"))));
    for broken in [waiting, lost, leaseless, orphan] {
        assert!(broken.contains(&"I5"), "{broken:?}");
    }
}

#[test]
fn a_limit_exceeded() {
    let broken = found(|cluster, _| {
        let queue = cluster.ledger.find("default").expect("an account");
        let account = &mut cluster.ledger.accounts[queue];
        account.limit[0] = Some(1000);
        account.tolerated.fill(0);
    });
    assert_eq!(broken, ["I9"]);
}

#[test]
fn books_that_do_not_add_up() {
    let ledger = found(|cluster, _| {
        let queue = cluster.ledger.find("default").expect("an account");
        cluster.ledger.accounts[queue].used[1] += 1;
    });
    let pool = found(|cluster, _| cluster.fleet.pools[0].free.whole += 1);
    let cpu = found(|cluster, _| cluster.fleet.nodes[0].cpu_free -= 1);
    let stakes = found(|cluster, _| cluster.stakes.pools[0].whole += 1);
    let reserved = found(|cluster, _| cluster.fleet.nodes[0].cpu_reserved += 1);
    let vacating = found(|cluster, _| cluster.vacating += 1);
    let priorities = found(|cluster, _| *cluster.priorities.entry(LOW).or_default() += 1);
    let hold = found(|cluster, world| held_by(cluster, world, "victim").holds[0].vacate_by = Some(Timestamp(0)));
    let claim = found(|cluster, world| drop(cluster.claims.remove(&world.job_id("chat"))));
    let lease = found(|cluster, world| {
        let lease = world.lease_of("victim").expect("leased");
        cluster.leases.get_mut(&lease).expect("the lease").state = LeaseState::Active;
    });
    for broken in [ledger, pool, cpu, stakes, reserved, vacating, priorities, hold, claim, lease] {
        assert!(broken.contains(&"books"), "{broken:?}");
    }
}
