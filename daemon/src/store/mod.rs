//! Postgres: what we keep, one file a table.
//!
//! We keep the event log and, in the same transaction, the current state it folds to. Memory is rebuilt from the
//! current-state tables; telemetry is not kept here. Every write of a round goes through [`commit`], guarded by the
//! leader's epoch; a write says how many rows it must touch and fails when it touches others. Separate
//! pools: for the round, and for everything people read, so that a slow read never delays a round.

pub mod chips;
pub mod claims;
pub mod commit;
pub mod consolidations;
pub mod demand;
pub mod events;
pub mod evictions;
pub mod holds;
pub mod idempotency_keys;
pub mod identity;
pub mod jobs;
pub mod leader;
pub mod leases;
pub mod load;
pub mod nodes;
pub mod policies;
pub mod queue_usage;
pub mod reservations;
pub mod tokens;
pub mod trouble;

use chiptide_model::Timestamp;
use chrono::{DateTime, Utc};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use std::str::FromStr;
use std::time::Duration;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");

/// Every statement of a round looks rows up by key, a handful at a time. Statistics lag behind tables that grow and
/// churn, and a planner that trusts them joins a batch of sixty against a scan of the whole table (measured: 30 ms
/// instead of 1). So the writer's plans are made once and may only use indexes.
const WRITER_PLANS: [(&str, &str); 5] = [
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("jit", "off"),
];

/// The database.
#[derive(Clone, Debug)]
pub struct Store {
    /// For the round, nothing else. Its one connection is made at the first use and belongs to the runtime that uses it.
    pub writer: PgPool,
    /// For the look-up of idempotency keys beside a commit; likewise one connection.
    pub keys: PgPool,
    /// For the look at who leads that renews fenced leases; one connection, so that no list is in its way.
    pub renewals: PgPool,
    /// For lists, lookups and everything that can wait.
    pub reader: PgPool,
}

/// What can go wrong in the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another daemon has taken the lead; nothing was written.
    #[error("another daemon has taken the lead")]
    Deposed,
    /// A write touched another number of rows than it must: memory and tables differ.
    #[error("{what} touched {touched} rows instead of {wanted}")]
    Rows {
        /// The write.
        what: &'static str,
        /// Rows it must touch.
        wanted: usize,
        /// Rows it touched.
        touched: u64,
    },
    /// A stored row cannot be read.
    #[error("table {table}, row {row}: {detail}")]
    Unreadable {
        /// The table.
        table: &'static str,
        /// Its key.
        row: String,
        /// What is wrong.
        detail: String,
    },
    /// Postgres did not answer within the time we give it.
    #[error("no answer from Postgres within {0:?}")]
    TooLate(Duration),
    /// A version of Postgres that lacks what we need.
    #[error("Postgres {0} is too old: 15 or newer is needed")]
    TooOld(i32),
    /// Postgres refused, or did not answer.
    #[error(transparent)]
    Postgres(#[from] sqlx::Error),
}

/// Result of a store call.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

impl Store {
    /// Connects and brings the schema up to date (under sqlx's own lock, so that two daemons may start at once).
    pub async fn open(url: &str) -> Result<Store> {
        let options = PgConnectOptions::from_str(url)?.application_name("chiptided").options([
            ("statement_timeout", "30s"),
            ("idle_in_transaction_session_timeout", "10s"),
            ("lock_timeout", "10s"),
        ]);
        let one = || {
            PgPoolOptions::new().max_connections(1).acquire_timeout(Duration::from_secs(5)).test_before_acquire(false)
        };
        let writer = one().connect_lazy_with(options.clone().options(WRITER_PLANS));
        let keys = one().connect_lazy_with(options.clone().options(WRITER_PLANS));
        let renewals = one().connect_lazy_with(options.clone());
        let reader =
            PgPoolOptions::new().max_connections(10).acquire_timeout(Duration::from_secs(3)).connect_lazy_with(options);
        let version: i32 = sqlx::query_scalar!("select current_setting('server_version_num')::int as \"n!\"")
            .fetch_one(&reader)
            .await?;
        if version < 150_000 {
            return Err(StoreError::TooOld(version / 10_000));
        }
        warn_of_lost_commits(&reader).await?;
        MIGRATIONS.run(&reader).await.map_err(|error| StoreError::Postgres(error.into()))?;
        Ok(Store { writer, keys, renewals, reader })
    }

    /// Whether the database answers.
    pub async fn answers(&self) -> bool {
        sqlx::query_scalar!("select 1 as \"one!\"").fetch_one(&self.reader).await.is_ok()
    }

    /// Closes both pools.
    pub async fn close(&self) {
        tokio::join!(self.writer.close(), self.keys.close(), self.renewals.close(), self.reader.close());
    }
}

/// With these off, Postgres acknowledges what a crash can undo, and so would we.
async fn warn_of_lost_commits(pool: &PgPool) -> Result<()> {
    let settings = sqlx::query!(
        "select current_setting('fsync') as \"fsync!\", current_setting('synchronous_commit') as \"synchronous_commit!\""
    );
    let settings = settings.fetch_one(pool).await?;
    if settings.fsync != "on" || settings.synchronous_commit == "off" {
        let (fsync, synchronous_commit) = (settings.fsync, settings.synchronous_commit);
        tracing::warn!(fsync, synchronous_commit, "a crash of this Postgres can lose what has been acknowledged");
    }
    Ok(())
}

/// Fails unless a write touched exactly the rows it must.
pub(crate) fn expect_rows(what: &'static str, wanted: usize, done: &sqlx::postgres::PgQueryResult) -> Result<()> {
    let touched = done.rows_affected();
    if touched == wanted as u64 { Ok(()) } else { Err(StoreError::Rows { what, wanted, touched }) }
}

/// A moment as a column value.
pub(crate) fn column(at: Timestamp) -> DateTime<Utc> {
    chiptide_api::time::to_utc(at)
}

/// A moment from a column value.
pub(crate) fn moment(at: DateTime<Utc>) -> Timestamp {
    chiptide_api::time::from_utc(at)
}

/// A value as JSON text, for a `jsonb` column.
pub(crate) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("model values have string keys and finite numbers, so they are always JSON")
}

/// Reads a `jsonb` column back.
pub(crate) fn unjson<T: serde::de::DeserializeOwned>(
    table: &'static str,
    row: &impl std::fmt::Display,
    value: serde_json::Value,
) -> Result<T> {
    serde_json::from_value(value).map_err(|error| StoreError::Unreadable {
        table,
        row: row.to_string(),
        detail: error.to_string(),
    })
}

/// A stored count or number as its unsigned type.
pub(crate) fn unsigned<T: TryFrom<i64>>(table: &'static str, row: &impl std::fmt::Display, value: i64) -> Result<T> {
    T::try_from(value).map_err(|_| StoreError::Unreadable {
        table,
        row: row.to_string(),
        detail: format!("{value} is out of range"),
    })
}

/// Numbers fit Postgres's signed `bigint` long after any real count.
pub(crate) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
