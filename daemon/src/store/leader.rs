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

/// Takes the lead if nobody holds it: `vacant` says that the last leader is known to be gone, otherwise its expiry must
/// have passed by the database's clock. `None` while another leads.
pub async fn take_over(
    connection: &mut PgConnection,
    instance: Uuid,
    vacant: bool,
    ttl_secs: f64,
) -> Result<Option<Leadership>> {
    let mut tx = connection.begin().await?;
    let leader = sqlx::query!("select epoch from leader for update").fetch_one(&mut *tx).await?;
    let expired =
        sqlx::query_scalar!("select expires_at < now() as \"expired!\" from leader_expiry").fetch_one(&mut *tx).await?;
    if !(vacant || expired) {
        return Ok(None);
    }
    let epoch: u64 = unsigned("leader", &"epoch", leader.epoch + 1)?;
    sqlx::query!("update leader set instance = $1, epoch = $2", instance, signed(epoch)).execute(&mut *tx).await?;
    sqlx::query!("update leader_expiry set expires_at = now() + make_interval(secs => $1)", ttl_secs)
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;
    Ok(Some(Leadership { instance, epoch }))
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

/// Tries to take the session lock that a living leader holds: got, it proves that no other daemon is connected. It is a
/// shortcut for a quick restart and never the proof of leadership.
pub async fn try_alone(connection: &mut PgConnection) -> Result<bool> {
    Ok(sqlx::query_scalar!("select pg_try_advisory_lock(7221954006301) as \"got!\"").fetch_one(connection).await?)
}
