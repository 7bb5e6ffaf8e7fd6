//! The agent against a scripted daemon. Where a test says "at once" the regular report is an hour away, so only news can
//! have brought the report.

#[allow(dead_code, reason = "other tests use the rest")]
mod scripted;

use chiptide_api::node::{HealthBody, VacantBody};
use scripted::{Heard, World, chip, lease, unreadable, vacate};
use uuid::Uuid;

const HOUR: &str = "1h";

#[tokio::test]
async fn it_registers_with_every_chip_and_reports_right_after() {
    let mut world = World::start(HOUR, vec![chip("c0", &[]), chip("c1", &[])]).await;
    let Heard::Registered(body) = world.next().await else { panic!("a registration comes first") };
    assert_eq!((body.boot_id.as_str(), body.cpu_milli, body.chips.len()), ("boot", 64_000, 2));
    assert_eq!(body.driver_version.as_deref(), Some("scripted 1"));
    let Heard::Reported(report) = world.next().await else { panic!("then a report") };
    assert_eq!((report.session, report.seq, report.chips.len()), (world.session(), 1, 2));
}

#[tokio::test]
async fn it_reports_regularly_and_counts_up_by_one() {
    let mut world = World::start("50ms", vec![chip("c0", &[])]).await;
    world.registered().await;
    for seq in 1..=4 {
        assert_eq!(world.reported(|_| true).await.seq, seq);
    }
}

#[tokio::test]
async fn a_change_of_health_is_reported_at_once() {
    let mut world = World::start(HOUR, vec![chip("c0", &[])]).await;
    world.reported(|_| true).await;
    world.sample(vec![unreadable(chip("c0", &[]))]);
    let report = world.reported(|report| report.chips[0].health != HealthBody::Healthy).await;
    assert_eq!((report.seq, report.chips[0].reading.processes.as_ref()), (2, None));
}

#[tokio::test]
async fn a_lease_is_confirmed_at_once_and_one_with_an_older_epoch_never() {
    let mut world = World::start(HOUR, vec![chip("c0", &[]), chip("c1", &[])]).await;
    let (first, late, other) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    world.order("r1", vec![lease(first, "c0", 7)], vec![]).await;
    world.reported(|report| report.confirmed == [first]).await;
    world.order("r2", vec![lease(late, "c0", 6), lease(other, "c1", 1)], vec![]).await;
    let report = world.reported(|report| report.confirmed.contains(&other)).await;
    assert_eq!(report.confirmed, [other], "the one of epoch 6 is out of date");
}

#[tokio::test]
async fn a_lease_on_an_unreadable_chip_is_confirmed_once_it_can_be_read() {
    let mut world = World::start(HOUR, vec![unreadable(chip("c0", &[]))]).await;
    let held = Uuid::new_v4();
    world.order("r1", vec![lease(held, "c0", 7)], vec![]).await;
    world.sample(vec![chip("c0", &[])]);
    let report = world.reported(|report| !report.confirmed.is_empty()).await;
    assert_eq!((report.confirmed, &report.chips[0].health), (vec![held], &HealthBody::Healthy));
}

#[tokio::test]
async fn vacancy_is_proven_only_by_a_later_readable_empty_reading() {
    let mut world = World::start(HOUR, vec![chip("c0", &[])]).await;
    let ended = Uuid::new_v4();
    world.order("r1", vec![], vec![vacate(ended, "c0", 7)]).await;
    // Each of these is news, so each brings a report; none of them is a proof.
    world.sample(vec![unreadable(chip("c0", &[]))]);
    let report = world.reported(|report| report.chips[0].health != HealthBody::Healthy).await;
    assert!(report.vacant.is_empty(), "unreadable is never empty");
    world.sample(vec![chip("c0", &[(9, Some(ended))])]);
    let report = world.reported(|report| report.chips[0].health == HealthBody::Healthy).await;
    assert!(report.vacant.is_empty(), "a process is there");
    world.sample(vec![chip("c0", &[])]);
    let report = world.reported(|report| !report.vacant.is_empty()).await;
    assert_eq!(report.vacant, [VacantBody { chip: "c0".into(), lease: ended, epoch: 7 }]);
}

#[tokio::test]
async fn a_reading_from_before_the_order_proves_nothing() {
    let mut world = World::start(HOUR, vec![chip("c0", &[])]).await;
    let (ended, witness) = (Uuid::new_v4(), Uuid::new_v4());
    world.order("r1", vec![lease(witness, "c0", 8)], vec![vacate(ended, "c0", 7)]).await;
    let report = world.reported(|report| !report.confirmed.is_empty()).await;
    assert!(report.vacant.is_empty());
    world.sample(vec![chip("c0", &[])]);
    world.reported(|report| report.vacant.iter().any(|proof| proof.epoch == 8)).await;
}

#[tokio::test]
async fn a_proof_is_repeated_until_the_order_is_gone() {
    let mut world = World::start("50ms", vec![chip("c0", &[])]).await;
    world.order("r1", vec![], vec![vacate(Uuid::new_v4(), "c0", 7)]).await;
    world.sample(vec![chip("c0", &[])]);
    let first = world.reported(|report| !report.vacant.is_empty()).await;
    let second = world.reported(|_| true).await;
    assert_eq!((second.seq, &second.vacant), (first.seq + 1, &first.vacant));
    world.order("r2", vec![], vec![]).await;
    world.reported(|report| report.vacant.is_empty() && report.orders_seen.as_deref() == Some("r2")).await;
}

#[tokio::test]
async fn a_shared_chip_is_vacant_of_one_lease_while_the_other_works_on() {
    let (ended, sharer) = (Uuid::new_v4(), Uuid::new_v4());
    let both = [(9, Some(sharer)), (10, Some(ended))];
    let mut world = World::start(HOUR, vec![chip("c0", &both)]).await;
    world.order("r1", vec![lease(sharer, "c0", 7)], vec![vacate(ended, "c0", 6)]).await;
    let report = world.reported(|report| report.confirmed == [sharer]).await;
    assert!(report.vacant.is_empty());
    world.sample(vec![chip("c0", &both[..1])]);
    let report = world.reported(|report| !report.vacant.is_empty()).await;
    assert_eq!(report.vacant, [VacantBody { chip: "c0".into(), lease: ended, epoch: 7 }]);
}

#[tokio::test]
async fn a_stale_session_registers_again_and_counts_from_one() {
    let mut world = World::start(HOUR, vec![chip("c0", &[])]).await;
    let first = world.registered().await;
    world.reported(|report| report.seq == 1).await;
    world.forget_session();
    let again = world.registered().await;
    assert_eq!(again.agent_id, first.agent_id, "the same incarnation");
    let report = world.reported(|_| true).await;
    assert_eq!((report.session, report.seq), (world.session(), 1));
}

#[tokio::test]
async fn a_new_chip_registers_again() {
    let mut world = World::start(HOUR, vec![chip("c0", &[])]).await;
    world.registered().await;
    world.sample(vec![chip("c0", &[]), chip("c1", &[])]);
    assert_eq!(world.registered().await.chips.len(), 2);
}

#[tokio::test]
async fn a_daemon_in_trouble_keeps_the_session_and_gets_the_news_later() {
    let mut world = World::start(HOUR, vec![chip("c0", &[])]).await;
    world.reported(|_| true).await;
    world.refuse_next_report(503, "not_leading");
    world.sample(vec![unreadable(chip("c0", &[]))]);
    let Heard::Reported(report) = world.next().await else { panic!("no registration in between") };
    assert!(report.seq == 3 && report.chips[0].health != HealthBody::Healthy);
}

#[tokio::test]
async fn a_source_that_ends_leaves_its_chips_unreadable() {
    let mut world = World::start(HOUR, vec![chip("c0", &[])]).await;
    world.reported(|_| true).await;
    let last = world.readings.borrow().clone();
    drop(std::mem::replace(&mut world.readings, tokio::sync::watch::Sender::new(last)));
    let report = world.reported(|report| report.chips[0].health != HealthBody::Healthy).await;
    assert!(matches!(report.chips[0].health, HealthBody::Unreadable { .. }));
}
