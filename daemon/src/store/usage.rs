//! Tables `usage` and `usage_book`: the accounts, written in one transaction with the position of the log they go up to, so that
//! no event is counted twice or left out.

use super::leader::{Leadership, guard};
use super::{Result, Store, column, json, moment, signed, unjson, unsigned};
use crate::usage::{Amounts, Book, Cell};
use chiptide_model::Timestamp;
use chrono::{DateTime, Utc};
use sqlx::PgPool;
use std::collections::BTreeMap;
use uuid::Uuid;

/// The book as it was last written.
pub async fn load(pool: &PgPool) -> Result<Book> {
    let row = sqlx::query!("select position, book from usage_book").fetch_optional(pool).await?;
    let Some(row) = row else { return Ok(Book::default()) };
    let mut book: Book = unjson("usage_book", &"-", row.book)?;
    book.position = unsigned("usage_book", &"-", row.position)?;
    Ok(book)
}

/// Up to when the accounts go; `None` before they were written.
pub async fn as_of(pool: &PgPool) -> Result<Option<Timestamp>> {
    Ok(sqlx::query_scalar!("select at from usage_book").fetch_optional(pool).await?.map(moment))
}

/// Writes what was counted, and how far. On a failure nothing is written and the book keeps what it had.
pub async fn write(store: &Store, leadership: Leadership, book: &mut Book) -> Result<()> {
    let counted = book.take();
    let written = try_write(store, leadership, book, &counted).await;
    if written.is_err() {
        book.put_back(counted);
    }
    written
}

async fn try_write(
    store: &Store,
    leadership: Leadership,
    book: &Book,
    counted: &BTreeMap<Cell, Amounts>,
) -> Result<()> {
    let mut tx = store.reader.begin().await?;
    guard(&mut tx, leadership).await?;
    let of = |amount: fn(&Amounts) -> i64| counted.values().map(amount).collect::<Vec<i64>>();
    let hours: Vec<DateTime<Utc>> = counted.keys().map(|cell| column(cell.hour)).collect();
    let queues: Vec<String> = counted.keys().map(|cell| cell.queue.clone()).collect();
    let jobs: Vec<Uuid> = counted.keys().map(|cell| cell.job.map_or(Uuid::nil(), |job| job.0)).collect();
    let classes: Vec<String> = counted.keys().map(|cell| cell.class.to_string()).collect();
    sqlx::query!(
        "insert into usage as u (hour, queue, job_id, device_class, granted, vacating, idle, out_of_service, borrowed, lent,
             lost_to_preemption, lost_to_faults, busy)
         select * from unnest($1::timestamptz[], $2::text[], $3::uuid[], $4::text[], $5::bigint[], $6::bigint[],
             $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[])
         on conflict (hour, queue, job_id, device_class) do update set
             granted = u.granted + excluded.granted, vacating = u.vacating + excluded.vacating,
             idle = u.idle + excluded.idle, out_of_service = u.out_of_service + excluded.out_of_service,
             borrowed = u.borrowed + excluded.borrowed, lent = u.lent + excluded.lent,
             lost_to_preemption = u.lost_to_preemption + excluded.lost_to_preemption,
             lost_to_faults = u.lost_to_faults + excluded.lost_to_faults, busy = u.busy + excluded.busy",
        &hours,
        &queues,
        &jobs,
        &classes,
        &of(|amounts| amounts.granted),
        &of(|amounts| amounts.vacating),
        &of(|amounts| amounts.idle),
        &of(|amounts| amounts.out_of_service),
        &of(|amounts| amounts.borrowed),
        &of(|amounts| amounts.lent),
        &of(|amounts| amounts.lost_to_preemption),
        &of(|amounts| amounts.lost_to_faults),
        &of(|amounts| amounts.busy)
    )
    .execute(&mut *tx)
    .await?;
    let body: serde_json::Value = serde_json::from_str(&json(book)).unwrap_or_default();
    sqlx::query!(
        "insert into usage_book (position, at, book) values ($1, $2, $3)
         on conflict (only_row) do update set position = excluded.position, at = excluded.at, book = excluded.book",
        signed(book.position),
        column(book.at),
        body
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(())
}

/// What is asked of the accounts.
#[derive(Clone, PartialEq, Debug)]
pub struct Question {
    /// From this hour on.
    pub from: DateTime<Utc>,
    /// Up to this hour, which is not in it.
    pub to: DateTime<Utc>,
    /// `hour` or `day`, to be told apart by.
    pub unit: Option<&'static str>,
    /// Whether to tell queues apart.
    pub by_queue: bool,
    /// Whether to tell jobs apart.
    pub by_job: bool,
    /// Whether to tell device classes apart.
    pub by_class: bool,
    /// The label of jobs to tell apart by.
    pub label: Option<String>,
    /// Only this queue.
    pub queue: Option<String>,
    /// Only this device class.
    pub device_class: Option<String>,
    /// Only these queues, for one who may not see the others.
    pub own: Option<Vec<String>>,
    /// At most so many rows.
    pub limit: i64,
}

/// One row of an answer.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// Start of the hour or day.
    pub time: Option<DateTime<Utc>>,
    /// The queue.
    pub queue: Option<String>,
    /// The job.
    pub job: Option<Uuid>,
    /// The device class.
    pub device_class: Option<String>,
    /// The label's value.
    pub label: Option<String>,
    /// The amounts.
    pub amounts: Amounts,
}

/// Answers a question, in order of time, queue, class, label and job.
pub async fn ask(pool: &PgPool, question: &Question) -> Result<Vec<Row>> {
    let rows = sqlx::query!(
        r#"select case when $3::text is not null then date_trunc($3, u.hour, 'UTC') end as time,
             case when $4::bool then u.queue end as queue,
             case when $5::bool then u.device_class end as device_class,
             case when $7::text is not null then j.labels ->> $7 end as label,
             case when $6::bool then u.job_id end as job,
             sum(granted)::bigint as "granted!", sum(vacating)::bigint as "vacating!", sum(idle)::bigint as "idle!",
             sum(out_of_service)::bigint as "out_of_service!", sum(borrowed)::bigint as "borrowed!",
             sum(lent)::bigint as "lent!", sum(lost_to_preemption)::bigint as "lost_to_preemption!",
             sum(lost_to_faults)::bigint as "lost_to_faults!", sum(busy)::bigint as "busy!"
         from usage u left join jobs j on $7::text is not null and j.id = u.job_id
         where u.hour >= $1 and u.hour < $2 and ($8::text is null or u.queue = $8)
             and ($9::text is null or u.device_class = $9) and ($10::text[] is null or u.queue = any($10))
         group by 1, 2, 3, 4, 5 order by 1, 2, 3, 4, 5 limit $11"#,
        question.from,
        question.to,
        question.unit,
        question.by_queue,
        question.by_class,
        question.by_job,
        question.label,
        question.queue,
        question.device_class,
        question.own.as_deref(),
        question.limit
    )
    .fetch_all(pool)
    .await?;
    let row = rows.into_iter().map(|row| Row {
        time: row.time,
        queue: row.queue,
        job: row.job.filter(|job| !job.is_nil()),
        device_class: row.device_class,
        label: row.label,
        amounts: Amounts {
            granted: row.granted,
            vacating: row.vacating,
            idle: row.idle,
            out_of_service: row.out_of_service,
            borrowed: row.borrowed,
            lent: row.lent,
            lost_to_preemption: row.lost_to_preemption,
            lost_to_faults: row.lost_to_faults,
            busy: row.busy,
        },
    });
    Ok(row.collect())
}
