//! Table `leader`: who may write, fenced by an epoch; and `leader_expiry`, renewed apart from it.

use super::{Result, StoreError, signed, unsigned};
use sqlx::{Connection, PgConnection, PgPool};
use uuid::Uuid;

/// A leadership: both are compared, since an epoch alone could repeat after a lost commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leadership {
    /// This process.
    pub instance: Uuid,
    /// Grows with every takeover.
    pub epoch: u64,
}

/// The leader's row as it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Who took the lead last.
    pub leadership: Leadership,
    /// Where it can be reached.
    pub url: String,
    /// Whether its expiry has passed by the database's clock.
    pub expired: bool,
}

/// Reads who leads. Takes no lock: a standby that looks often is in nobody's way.
pub async fn look(connection: &mut PgConnection) -> Result<Seen> {
    let row = sqlx::query!(
        "select instance, epoch, url, expires_at < now() as \"expired!\" from leader cross join leader_expiry"
    );
    let row = row.fetch_one(connection).await?;
    let leadership = Leadership { instance: row.instance, epoch: unsigned("leader", &"epoch", row.epoch)? };
    Ok(Seen { leadership, url: row.url, expired: row.expired })
}

/// Takes the lead if nobody holds it: `vacant` says that the last leader is known to be gone, otherwise its expiry must
/// have passed by the database's clock. `url` is where the new leader can be reached. `None` while another leads; an error
/// when somebody holds the row for longer than a moment.
pub async fn take_over(
    connection: &mut PgConnection,
    instance: Uuid,
    url: &str,
    vacant: bool,
    ttl_secs: f64,
) -> Result<Option<Leadership>> {
    let mut tx = connection.begin().await?;
    sqlx::query!("set local lock_timeout = '500ms'").execute(&mut *tx).await?;
    let leader = sqlx::query!("select epoch from leader for update").fetch_one(&mut *tx).await?;
    // The clock of the statement, not of the transaction, which began before the row was waited for.
    let expired = sqlx::query_scalar!("select expires_at < statement_timestamp() as \"expired!\" from leader_expiry");
    if !(vacant || expired.fetch_one(&mut *tx).await?) {
        return Ok(None);
    }
    let epoch: u64 = unsigned("leader", &"epoch", leader.epoch + 1)?;
    // Before anybody can know of the epoch, so that its lock is never free while its leader lives.
    try_alone(&mut tx, epoch).await?;
    sqlx::query!("update leader set instance = $1, epoch = $2, url = $3", instance, signed(epoch), url)
        .execute(&mut *tx)
        .await?;
    sqlx::query!("update leader_expiry set expires_at = now() + make_interval(secs => $1)", ttl_secs)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(Some(Leadership { instance, epoch }))
}

/// Ends every session of a daemon, which undoes what it has not committed; answers how many. Needs nothing but the account
/// that the daemons share.
pub async fn end_sessions_of(connection: &mut PgConnection, instance: Uuid) -> Result<u64> {
    let ended = sqlx::query_scalar!(
        "select count(*) filter (where pg_terminate_backend(pid)) as \"ended!\" from pg_stat_activity
         where application_name = $1 and datname = current_database() and pid <> pg_backend_pid()",
        session_name(instance)
    );
    unsigned("pg_stat_activity", &"count", ended.fetch_one(connection).await?)
}

/// What a daemon's sessions are called in Postgres: they can be told from those of another.
pub fn session_name(instance: Uuid) -> String {
    format!("chiptided {instance}")
}

/// Pushes the expiry out again; refuses when another has taken over.
pub async fn renew(connection: &mut PgConnection, leadership: Leadership, ttl_secs: f64) -> Result<()> {
    let mut tx = connection.begin().await?;
    guard(&mut tx, leadership).await?;
    sqlx::query!("update leader_expiry set expires_at = now() + make_interval(secs => $1)", ttl_secs)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(())
}

/// Gives the lead up, so that the next daemon need not wait.
pub async fn resign(connection: &mut PgConnection, leadership: Leadership) -> Result<()> {
    renew(connection, leadership, 0.0).await
}

/// The first statement of every write transaction. `for share` is what fences: a takeover waits for this transaction,
/// or this transaction sees the takeover (a plain read, `where exists` and `for key share` all let a deposed leader
/// commit after it).
pub async fn guard(connection: &mut PgConnection, leadership: Leadership) -> Result<()> {
    let mine = sqlx::query_scalar!(
        "select 1 as \"one!\" from leader where instance = $1 and epoch = $2 for share",
        leadership.instance,
        signed(leadership.epoch)
    );
    mine.fetch_optional(connection).await?.map(drop).ok_or(StoreError::Deposed)
}

/// Whether this leadership is the one in force, read now. Whoever takes over later waits anew for what was renewed by it.
pub async fn leads(pool: &PgPool, leadership: Leadership) -> Result<bool> {
    let mine = sqlx::query_scalar!(
        "select exists (select from leader where instance = $1 and epoch = $2) as \"mine!\"",
        leadership.instance,
        signed(leadership.epoch)
    );
    Ok(mine.fetch_one(pool).await?)
}

/// Waits until no write transaction of this leadership is under way any more, one that its caller has given up included.
/// A round locks the leader's row with its first write and keeps that until it has ended.
pub async fn settle(connection: &mut PgConnection, leadership: Leadership) -> Result<()> {
    let mine = sqlx::query_scalar!(
        "select 1 as \"one!\" from leader where instance = $1 and epoch = $2 for update",
        leadership.instance,
        signed(leadership.epoch)
    );
    mine.fetch_optional(connection).await?.map(drop).ok_or(StoreError::Deposed)
}

/// Tries to take the session lock that the living leader of this epoch holds: got, it proves that this leader is not
/// connected any more. It is a shortcut for a quick takeover and never the proof of leadership. Each epoch has a lock of its
/// own: a leader that hangs keeps its lock past the takeover, and lets go of it when it wakes, which must say nothing of
/// the next one.
pub async fn try_alone(connection: &mut PgConnection, epoch: u64) -> Result<bool> {
    // Only the lowest 31 bits tell epochs apart: those that meet are neighbours.
    let key = (epoch & 0x7fff_ffff) as i32;
    let got = sqlx::query_scalar!("select pg_try_advisory_lock(722195400, $1) as \"got!\"", key);
    Ok(got.fetch_one(connection).await?)
}
