//! The event log is read from the real table of the real schema, in a throw-away Postgres.

use anyhow::Result;
use chiptide_model::{Event, JobId, NodeId, Outcome};
use chiptide_postgres::Throwaway;
use chiptide_sim::audit::Entry;
use chiptide_sim::event_log;
use sqlx::types::Json;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

#[tokio::test]
async fn the_log_is_read_in_order_and_as_written() -> Result<()> {
    let postgres = Throwaway::start()?;
    postgres.ensure_database("log")?;
    let url = postgres.url("log");
    let mut writer = PgConnection::connect(&url).await?;
    sqlx::raw_sql(include_str!("../../migrations/0002_events.sql")).execute(&mut writer).await?;
    let events = [
        Event::LeaderTookOver { epoch: 3 },
        Event::NodeHeard { node: NodeId::new("n1")? },
        Event::JobEnded { job: JobId(Uuid::from_u128(7)), outcome: Outcome::Failed { reason: "max_duration".into() } },
    ];
    for (seq, event) in events.iter().enumerate().rev() {
        let insert = "insert into events (seq, at, epoch, kind, body) values ($1, to_timestamp(1.5), 3, $2, $3)";
        let insert = sqlx::query(insert).bind(seq as i64 + 1).bind(event.kind()).bind(Json(event));
        insert.execute(&mut writer).await?;
    }
    let expected = events.into_iter().zip(1..).map(|(event, seq)| Entry { seq, at_ms: 1500, leader_epoch: 3, event });
    assert_eq!(event_log::read(&url).await?, expected.collect::<Vec<_>>());
    Ok(())
}
