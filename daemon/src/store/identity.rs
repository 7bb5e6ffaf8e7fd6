//! Table `database_identity`, and who the database is now: a promoted replica may have forgotten what was acknowledged.

use super::{Result, unsigned};
use sqlx::PgConnection;

/// Which Postgres this is. Another timeline of the same system is a failover (or a recovery to a point in time); another
/// system is a copy made by restoring a dump.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Drawn when the cluster was made; replicas share it.
    pub system_identifier: i64,
    /// Grows by one with every promotion.
    pub timeline: u64,
}

/// Who the database is now. The timeline is read off the log being written: the last checkpoint's, in the control file, is
/// still the old one in the first moments after a promotion. Refused by Postgres (an error) where the account may not read
/// the control file.
pub async fn read(connection: &mut PgConnection) -> Result<Identity> {
    let now = sqlx::query!(
        r#"select system_identifier as "system_identifier!",
             case when pg_is_in_recovery() then (select timeline_id from pg_control_checkpoint())::bigint
                  else ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::bigint end as "timeline!"
           from pg_control_system()"#
    );
    let now = now.fetch_one(connection).await?;
    let timeline = unsigned("database_identity", &"now", now.timeline)?;
    Ok(Identity { system_identifier: now.system_identifier, timeline })
}

/// Who the database was when it was last noted; `None` before the first time.
pub async fn noted(connection: &mut PgConnection) -> Result<Option<Identity>> {
    let row =
        sqlx::query!("select system_identifier, timeline from database_identity").fetch_optional(connection).await?;
    let identity = |system_identifier, timeline| {
        Ok(Identity { system_identifier, timeline: unsigned("database_identity", &"noted", timeline)? })
    };
    row.map(|row| identity(row.system_identifier, row.timeline)).transpose()
}

/// Notes who the database is, for the next comparison.
pub async fn note(connection: &mut PgConnection, identity: Identity) -> Result<()> {
    sqlx::query!(
        "insert into database_identity (system_identifier, timeline, noted_at) values ($1, $2, now())
         on conflict (only_row) do update set system_identifier = $1, timeline = $2, noted_at = now()",
        identity.system_identifier,
        super::signed(identity.timeline)
    )
    .execute(connection)
    .await?;
    Ok(())
}
