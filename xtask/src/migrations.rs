//! Applies the numbered SQL of `migrations/` to an empty database, as the daemon does at its start.

use anyhow::{Context, Result, ensure};
use chiptide_postgres::Throwaway;
use std::path::Path;

/// Applies every migration in the order of its number.
pub(crate) fn apply(cluster: &Throwaway, database: &str, root: &Path) -> Result<()> {
    let dir = root.join("migrations");
    let mut numbered = Vec::new();
    for (name, sql) in crate::files(&dir, "sql")? {
        numbered.push((number(&name)?, name, sql));
    }
    numbered.sort();
    for pair in numbered.windows(2) {
        ensure!(pair[0].0 != pair[1].0, "migrations {} and {} have one number", pair[0].1, pair[1].1);
    }
    for (_, name, sql) in &numbered {
        let mut psql = cluster.psql(database);
        // The same switch that sqlx reads: such a file runs outside a transaction.
        if !sql.starts_with("-- no-transaction") {
            psql.arg("--single-transaction");
        }
        let output = psql.arg("-f").arg(dir.join(name)).output().context("run psql")?;
        ensure!(output.status.success(), "migration {name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// `0007_loans.sql` is 7.
fn number(name: &str) -> Result<u64> {
    let digits = name.split('_').next().unwrap_or_default();
    digits.parse().with_context(|| format!("migration {name} does not begin with a number and `_`"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_migration_begins_with_its_number() {
        assert_eq!(super::number("0007_loans.sql").expect("a number"), 7);
        assert!(super::number("loans.sql").is_err());
    }
}
