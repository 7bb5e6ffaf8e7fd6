//! What is wrong with the database, in words that `/readyz`, the log and the metrics share. The one place where SQLSTATEs
//! are read.

use super::StoreError;
use sqlx::migrate::MigrateError;
use std::io::ErrorKind;

/// What is wrong with the database. The words are stable.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trouble {
    /// Nothing answers at its address, or the connection broke.
    Unreachable,
    /// It is starting, recovering or shutting down.
    Starting,
    /// It takes no more connections: its limit, or that of our account or database, is reached.
    TooManyConnections,
    /// It has no room on its disk.
    DiskFull,
    /// It is out of memory or of another resource of its own.
    OutOfResources,
    /// It did not answer in time, or waited for somebody's lock for too long.
    Slow,
    /// It takes no writes: a replica, or a primary that was demoted or set so.
    ReadOnly,
    /// It does not let us in, or not do what we must.
    AccessDenied,
    /// The database does not exist.
    NoDatabase,
    /// It is older than what we need.
    TooOld,
    /// Its schema was made by a newer version of the daemon.
    SchemaNewer,
    /// A migration that was applied is not the one we have: somebody altered one of them.
    SchemaAltered,
    /// A migration does not go through.
    MigrationFailed,
    /// Two transactions stood in each other's way; doing it again helps.
    Conflict,
    /// A write hit other rows than memory says, or a row cannot be read.
    Inconsistent,
    /// It refused for another reason.
    Refused,
}

impl Trouble {
    /// Every kind, for metrics.
    pub const ALL: [Trouble; 16] = [
        Trouble::Unreachable,
        Trouble::Starting,
        Trouble::TooManyConnections,
        Trouble::DiskFull,
        Trouble::OutOfResources,
        Trouble::Slow,
        Trouble::ReadOnly,
        Trouble::AccessDenied,
        Trouble::NoDatabase,
        Trouble::TooOld,
        Trouble::SchemaNewer,
        Trouble::SchemaAltered,
        Trouble::MigrationFailed,
        Trouble::Conflict,
        Trouble::Inconsistent,
        Trouble::Refused,
    ];

    /// Its stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            Trouble::Unreachable => "unreachable",
            Trouble::Starting => "starting",
            Trouble::TooManyConnections => "too_many_connections",
            Trouble::DiskFull => "disk_full",
            Trouble::OutOfResources => "out_of_resources",
            Trouble::Slow => "slow",
            Trouble::ReadOnly => "read_only",
            Trouble::AccessDenied => "access_denied",
            Trouble::NoDatabase => "no_database",
            Trouble::TooOld => "too_old",
            Trouble::SchemaNewer => "schema_newer",
            Trouble::SchemaAltered => "schema_altered",
            Trouble::MigrationFailed => "migration_failed",
            Trouble::Conflict => "conflict",
            Trouble::Inconsistent => "inconsistent",
            Trouble::Refused => "refused",
        }
    }

    /// Whether there is no point in asking for rows either.
    pub fn bars_reads(self) -> bool {
        matches!(self, Trouble::Unreachable | Trouble::Starting | Trouble::AccessDenied | Trouble::NoDatabase)
    }

    /// What a failed store call says about the database. Losing the lead is no trouble of the database's; it counts as
    /// refused where a word is needed.
    pub fn of(error: &StoreError) -> Trouble {
        match error {
            StoreError::Deposed => Trouble::Refused,
            StoreError::Rows { .. } | StoreError::Unreadable { .. } => Trouble::Inconsistent,
            StoreError::TooLate(_) => Trouble::Slow,
            StoreError::ReadOnly => Trouble::ReadOnly,
            StoreError::TooOld(_) => Trouble::TooOld,
            StoreError::Postgres(error) => of_sqlx(error),
        }
    }
}

impl std::fmt::Display for Trouble {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

fn of_sqlx(error: &sqlx::Error) -> Trouble {
    match error {
        sqlx::Error::Database(error) => of_sqlstate(error.code().as_deref().unwrap_or_default()),
        sqlx::Error::Io(error) if error.kind() == ErrorKind::TimedOut => Trouble::Slow,
        sqlx::Error::PoolTimedOut => Trouble::Slow,
        sqlx::Error::Migrate(error) => of_migration(error),
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::PoolClosed => {
            Trouble::Unreachable
        }
        _ => Trouble::Refused,
    }
}

fn of_migration(error: &MigrateError) -> Trouble {
    match error {
        MigrateError::VersionMissing(_) | MigrateError::VersionTooNew(..) => Trouble::SchemaNewer,
        MigrateError::VersionMismatch(_) | MigrateError::Dirty(_) => Trouble::SchemaAltered,
        MigrateError::Execute(inner) | MigrateError::ExecuteMigration(inner, _) => match of_sqlx(inner) {
            // The statement itself is refused: that is the migration's own failure.
            Trouble::Refused | Trouble::Conflict => Trouble::MigrationFailed,
            other => other,
        },
        _ => Trouble::MigrationFailed,
    }
}

/// Appendix A of the Postgres manual: the first two characters are the class.
fn of_sqlstate(code: &str) -> Trouble {
    match code {
        "53300" => Trouble::TooManyConnections,
        "53100" => Trouble::DiskFull,
        "57P01" | "57P02" | "57P03" => Trouble::Starting,
        "57014" | "55P03" | "25P03" | "25P04" | "57P05" => Trouble::Slow,
        "25006" => Trouble::ReadOnly,
        "42501" => Trouble::AccessDenied,
        "3D000" => Trouble::NoDatabase,
        _ => match code.get(..2).unwrap_or_default() {
            "08" => Trouble::Unreachable,
            "28" => Trouble::AccessDenied,
            "40" => Trouble::Conflict,
            "53" => Trouble::OutOfResources,
            "58" | "XX" => Trouble::Inconsistent,
            _ => Trouble::Refused,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sqlstates_have_their_word() {
        for (code, word) in [
            ("53300", "too_many_connections"),
            ("53100", "disk_full"),
            ("53200", "out_of_resources"),
            ("57P03", "starting"),
            ("55P03", "slow"),
            ("57014", "slow"),
            ("25006", "read_only"),
            ("28P01", "access_denied"),
            ("3D000", "no_database"),
            ("08006", "unreachable"),
            ("40P01", "conflict"),
            ("23505", "refused"),
            ("", "refused"),
        ] {
            assert_eq!(of_sqlstate(code).as_str(), word, "{code}");
        }
    }

    #[test]
    fn a_newer_schema_is_told_from_an_altered_one() {
        assert_eq!(of_migration(&MigrateError::VersionMissing(99)), Trouble::SchemaNewer);
        assert_eq!(of_migration(&MigrateError::VersionMismatch(1)), Trouble::SchemaAltered);
        let refused = MigrateError::ExecuteMigration(sqlx::Error::RowNotFound, 3);
        assert_eq!(of_migration(&refused), Trouble::MigrationFailed);
        let away = MigrateError::Execute(sqlx::Error::Io(ErrorKind::ConnectionRefused.into()));
        assert_eq!(of_migration(&away), Trouble::Unreachable);
    }
}
