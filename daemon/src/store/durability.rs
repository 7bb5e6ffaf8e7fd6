//! Whether what this Postgres acknowledges outlives a crash and a failover.

use super::Result;
use sqlx::PgConnection;

/// What an admin should know about the promises of this Postgres: settings with which a crash, or the promotion of a
/// replica, can undo what we acknowledged. Empty when all is well.
pub async fn warnings(connection: &mut PgConnection) -> Result<Vec<String>> {
    let found = sqlx::query!(
        r#"select current_setting('fsync') as "fsync!", current_setting('synchronous_commit') as "synchronous_commit!",
             current_setting('full_page_writes') as "full_page_writes!",
             current_setting('synchronous_standby_names') as "synchronous_standby_names!",
             (select count(*) from pg_stat_replication) as "replicas!""#
    );
    let found = found.fetch_one(connection).await?;
    let mut warnings = Vec::new();
    if found.fsync != "on" {
        warnings.push("fsync is off: a crash of the database's machine can ruin it".to_owned());
    }
    if found.full_page_writes != "on" {
        warnings.push("full_page_writes is off: a crash of the database's machine can ruin it".to_owned());
    }
    if found.synchronous_commit == "off" {
        warnings.push("synchronous_commit is off: a crash can lose what has been acknowledged".to_owned());
    }
    let is_waited_for = !found.synchronous_standby_names.trim().is_empty();
    if found.replicas > 0 && (!is_waited_for || found.synchronous_commit == "local") {
        let count = found.replicas;
        warnings.push(format!(
            "{count} replicas, none of them synchronous: one that is promoted can forget what has been acknowledged; \
             set synchronous_standby_names, and promote synchronous ones only"
        ));
    }
    Ok(warnings)
}
