//! Postgres: what we keep, one file a table.
//!
//! We keep the event log and, in the same transaction, the current state it folds to. Memory is rebuilt from the
//! current-state tables; telemetry is not kept here. Every write of a round goes through [`commit`], guarded by the
//! leader's epoch; a write says how many rows it must touch and fails when it touches others. Separate
//! pools: for the round, and for everything people read, so that a slow read never delays a round.

pub mod audit;
pub mod chips;
pub mod claims;
pub mod commit;
pub mod consolidations;
pub mod demand;
pub mod durability;
pub mod events;
pub mod eviction_steps;
pub mod evictions;
pub mod holds;
pub mod idempotency_keys;
pub mod identity;
pub mod jobs;
pub mod join_tokens;
pub mod leader;
pub mod leases;
pub mod load;
pub mod log_subjects;
pub mod nodes;
pub mod policies;
pub mod queue_usage;
pub mod reservations;
pub mod tokens;
pub mod trouble;
pub mod work_ends;

use chiptide_model::Timestamp;
use chrono::{DateTime, Utc};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool};
use std::str::FromStr;
use std::time::Duration;
use uuid::Uuid;

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
    options: PgConnectOptions,
    limits: Limits,
    instance: Uuid,
}

/// How long Postgres is given, and how many connections it gives us.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// For the commit of one round. After that its outcome is unknown, and the cluster is read anew.
    pub round: Duration,
    /// For what one request reads.
    pub read: Duration,
    /// For a connection.
    pub connect: Duration,
    /// For somebody else's lock.
    pub lock: Duration,
    /// Connections for reads.
    pub readers: u32,
}

impl Default for Limits {
    fn default() -> Limits {
        let seconds = Duration::from_secs;
        Limits { round: seconds(5), read: seconds(5), connect: seconds(3), lock: seconds(2), readers: 10 }
    }
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
    /// It takes no writes.
    #[error("the database is read-only: a replica, or a primary that was demoted or set so")]
    ReadOnly,
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
    /// A store that connects when it is first used, with a new instance id. Refuses a URL that cannot be read.
    pub fn at(url: &str, limits: Limits) -> Result<Store> {
        let millis = |span: Duration| span.as_millis().to_string();
        let instance = Uuid::new_v4();
        let options = PgConnectOptions::from_str(url)?.application_name(&leader::session_name(instance)).options([
            ("statement_timeout", "30s".to_owned()),
            ("idle_in_transaction_session_timeout", "10s".to_owned()),
            ("lock_timeout", millis(limits.lock)),
        ]);
        let reader = PgPoolOptions::new().max_connections(limits.readers).acquire_timeout(limits.connect);
        let reader = reader.connect_lazy_with(options.clone());
        let (writer, keys, renewals) = (one(&options, limits), one(&options, limits), one(&options, limits));
        Ok(Store { writer, keys, renewals, reader, options, limits, instance })
    }

    /// Connects and brings the schema up to date (under sqlx's own lock, so that two daemons may start at once).
    pub async fn open(url: &str) -> Result<Store> {
        let store = Store::at(url, Limits::default())?;
        store.prepare().await?;
        Ok(store)
    }

    /// Brings the schema up to date. May be repeated.
    pub async fn prepare(&self) -> Result<()> {
        let mut connection = self.connect().await?;
        let version = sqlx::query_scalar!("select current_setting('server_version_num')::int as \"n!\"");
        let version = version.fetch_one(&mut connection).await?;
        if version < 150_000 {
            return Err(StoreError::TooOld(version / 10_000));
        }
        is_writable(&mut connection).await?;
        connection.close().await?;
        // A migration may have much to do.
        let unhurried = one(&self.options.clone().options([("statement_timeout", "0")]), self.limits);
        let migrated = MIGRATIONS.run(&unhurried).await.map_err(|error| StoreError::Postgres(error.into()));
        unhurried.close().await;
        migrated
    }

    /// A connection outside the pools. Unlike theirs, its failure says what is wrong: a pool hides it behind a time-out.
    pub async fn connect(&self) -> Result<PgConnection> {
        let connecting = PgConnection::connect_with(&self.options);
        match tokio::time::timeout(self.limits.connect, connecting).await {
            Ok(connected) => Ok(connected?),
            Err(_) => Err(StoreError::TooLate(self.limits.connect)),
        }
    }

    /// This user of the database: its sessions carry the id, and it leads under it.
    pub fn instance(&self) -> Uuid {
        self.instance
    }

    /// How long Postgres is given.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The same store with new connections for rounds: after a commit that was given up, the old one may still be waiting
    /// for its answer, and nothing else can be asked on it.
    pub fn with_new_writer(&self) -> Store {
        let (writer, keys) = (one(&self.options, self.limits), one(&self.options, self.limits));
        Store { writer, keys, ..self.clone() }
    }

    /// Closes both pools.
    pub async fn close(&self) {
        tokio::join!(self.writer.close(), self.keys.close(), self.renewals.close(), self.reader.close());
    }
}

/// A pool of one connection, for rounds. It is never replaced by another without our noticing, however old or idle: behind a
/// new one may be another database, a replica that was promoted, and the rounds must read the cluster anew before they write.
fn one(options: &PgConnectOptions, limits: Limits) -> PgPool {
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(limits.connect).test_before_acquire(false);
    pool.idle_timeout(None).max_lifetime(None).connect_lazy_with(options.clone().options(WRITER_PLANS))
}

/// Whether Postgres answers and takes writes: a replica, or a primary that was set read-only, does not.
pub async fn is_writable(connection: &mut PgConnection) -> Result<()> {
    let read_only = sqlx::query_scalar!("select current_setting('transaction_read_only') as \"on!\"");
    match read_only.fetch_one(connection).await?.as_str() {
        "off" => Ok(()),
        _ => Err(StoreError::ReadOnly),
    }
}

/// Whether Postgres can put a megabyte on its disk.
pub async fn has_room(connection: &mut PgConnection) -> Result<()> {
    let mut tx = connection.begin().await?;
    let fill = "create temporary table chiptide_room on commit drop as
        select repeat(md5(i::text), 32) as filling from generate_series(1, 1024) i";
    sqlx::raw_sql(fill).execute(&mut *tx).await?;
    tx.rollback().await?;
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
