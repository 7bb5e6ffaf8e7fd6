//! Reservations, black box.

use crate::common::{Daemon, Node, job};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_gang_that_waits_for_known_ends_shows_its_reservation_and_keeps_it_over_a_restart() {
    let daemon = Daemon::start().await;
    let mut node = Node::register(&daemon, "n1", 2).await;
    let small = job(json!({"name": "small", "max_duration": "1h"}));
    daemon.client.create_job(&small, None).await.expect("accepted");
    node.obey().await;
    let gang = daemon.client.create_job(&job(json!({"name": "gang", "chips": 2})), None).await.expect("accepted");
    let reserved = daemon.client.job(gang.id).await.expect("there").reservation.expect("it has a reservation");
    assert_eq!(reserved.chips, 2);
    assert!(reserved.starts_at > gang.submitted_at);
    let endless = daemon.client.create_job(&job(json!({"name": "endless"})), None).await.expect("accepted");
    assert_eq!(endless.state, "pending", "a job without an end does not take a reserved chip");
    let daemon = daemon.restart().await;
    let after = daemon.client.job(gang.id).await.expect("there").reservation;
    assert_eq!(after, Some(reserved));
}
