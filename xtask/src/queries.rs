//! `.sqlx`: what Postgres says of every `query!` in the daemon, so that a build needs no database.
//!
//! sqlx's macros write these files themselves while they are expanded with `DATABASE_URL` and `SQLX_OFFLINE_DIR` set; all
//! there is to do is to give them a database, make cargo compile the daemon's library once more, and drop what is stale.
//! Queries in the daemon's tests are not seen: those use unchecked ones.

use crate::migrations;
use anyhow::{Context, Result, bail, ensure};
use chiptide_postgres::Throwaway;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

const DATABASE: &str = "prepare";

/// File names and contents.
type Queries = BTreeMap<String, String>;

/// Makes `.sqlx` what the queries and migrations of this tree say.
pub(crate) fn prepare(root: &Path) -> Result<()> {
    let (dir, wanted) = (root.join(".sqlx"), describe(root)?);
    let found = crate::files(&dir, "json")?;
    if !wanted.is_empty() {
        fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    }
    for (name, text) in wanted.iter().filter(|(name, text)| found.get(*name) != Some(*text)) {
        fs::write(dir.join(name), text).with_context(|| format!("write {name}"))?;
    }
    let stale: Vec<&String> = found.keys().filter(|name| !wanted.contains_key(*name)).collect();
    for name in &stale {
        fs::remove_file(dir.join(name)).with_context(|| format!("remove {name}"))?;
    }
    println!("{} queries in .sqlx, {} stale ones removed", wanted.len(), stale.len());
    Ok(())
}

/// Refuses a tree whose `.sqlx` is out of step, naming each query at fault.
pub(crate) fn check(root: &Path) -> Result<()> {
    let wanted = describe(root)?;
    let differences = differences(&crate::files(&root.join(".sqlx"), "json")?, &wanted);
    if differences.is_empty() {
        println!("{} queries, .sqlx is in step", wanted.len());
        return Ok(());
    }
    bail!(".sqlx is out of step; run `cargo xtask db-prepare` and commit it\n{}", differences.join("\n"))
}

/// Expands every query of the daemon's library against a fresh database.
fn describe(root: &Path) -> Result<Queries> {
    let cluster = Throwaway::start()?;
    cluster.ensure_database(DATABASE)?;
    migrations::apply(&cluster, DATABASE, root)?;
    let dir = root.join("target/xtask-sqlx");
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("empty {}", dir.display()))?;
    }
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let _touched = Touched::new(root.join("daemon/src/lib.rs"))?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // The same profile as the tests, so that what they compiled is used again.
    cargo.args(["build", "--quiet", "--package", "chiptide-daemon", "--lib"]).current_dir(root);
    cargo.env("DATABASE_URL", cluster.url(DATABASE)).env("SQLX_OFFLINE", "false").env("SQLX_OFFLINE_DIR", &dir);
    let status = cargo.status().context("run cargo")?;
    ensure!(status.success(), "the daemon does not compile against its migrations ({status})");
    crate::files(&dir, "json")
}

/// Cargo does not know that the macros read a database, so the crate must look changed. Its time is put back at the end:
/// what the tests have compiled stays fresh.
struct Touched {
    path: PathBuf,
    before: SystemTime,
}

impl Touched {
    fn new(path: PathBuf) -> Result<Touched> {
        let before = fs::metadata(&path).and_then(|found| found.modified());
        let touched = Touched { before: before.with_context(|| format!("look at {}", path.display()))?, path };
        touched.set(SystemTime::now()).with_context(|| format!("touch {}", touched.path.display()))?;
        Ok(touched)
    }

    fn set(&self, time: SystemTime) -> std::io::Result<()> {
        File::options().append(true).open(&self.path)?.set_modified(time)
    }
}

impl Drop for Touched {
    fn drop(&mut self) {
        if let Err(error) = self.set(self.before) {
            eprintln!("warning: {} keeps a new time: {error}", self.path.display());
        }
    }
}

fn differences(found: &Queries, wanted: &Queries) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, text) in wanted {
        match found.get(name) {
            None => lines.push(format!("  missing: {name}: {}", sql(text))),
            Some(old) if old != text => lines.push(format!("  changed: {name}: {}", sql(text))),
            Some(_) => {}
        }
    }
    let stale = found.iter().filter(|(name, _)| !wanted.contains_key(*name));
    lines.extend(stale.map(|(name, text)| format!("  stale:   {name}: {}", sql(text))));
    lines
}

/// The query of a file on one line, cut to a readable length.
fn sql(text: &str) -> String {
    let json: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let words: Vec<&str> = json["query"].as_str().unwrap_or("?").split_whitespace().collect();
    words.join(" ").chars().take(90).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_name_the_query() {
        let file = |sql: &str, extra: &str| format!("{{\"query\": \"{sql}\", \"x\": \"{extra}\"}}");
        let wanted = Queries::from([
            ("a.json".into(), file("select  1", "")),
            ("b.json".into(), file("select 2", "new")),
            ("c.json".into(), file("select 3", "")),
        ]);
        let found = Queries::from([
            ("b.json".into(), file("select 2", "old")),
            ("c.json".into(), file("select 3", "")),
            ("d.json".into(), file("select 4", "")),
        ]);
        let expected = ["  missing: a.json: select 1", "  changed: b.json: select 2", "  stale:   d.json: select 4"];
        assert_eq!(differences(&found, &wanted), expected);
        assert!(differences(&wanted, &wanted).is_empty());
    }
}
