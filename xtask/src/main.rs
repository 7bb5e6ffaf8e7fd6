//! The repository's own chores: `cargo xtask --help`. Nothing here ships.

mod migrations;
mod queries;
mod tidy;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::path::Path;
use std::process::ExitCode;

/// Chores of the Chiptide repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Args {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Debug, Subcommand)]
enum Chore {
    /// Writes `.sqlx` anew: every checked query of the daemon, described by a throw-away Postgres.
    DbPrepare,
    /// Fails, naming the differences, when `.sqlx` is not what `db-prepare` would write.
    DbCheck,
    /// Lists files that have grown long; fails on unfinished work and on clocks or I/O in the pure crates.
    Tidy,
}

fn main() -> ExitCode {
    let done = match Args::parse().chore {
        Chore::DbPrepare => queries::prepare(root()),
        Chore::DbCheck => queries::check(root()),
        Chore::Tidy => tidy::check(root()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The repository's root.
fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().expect("xtask lies in the repository")
}

/// Names and contents of the files with one extension in a directory; empty when there is no such directory.
fn files(dir: &Path, extension: &str) -> Result<std::collections::BTreeMap<String, String>> {
    let mut files = std::collections::BTreeMap::new();
    if !dir.exists() {
        return Ok(files);
    }
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.extension().is_some_and(|found| found == extension) {
            files.insert(name, std::fs::read_to_string(&path)?);
        }
    }
    Ok(files)
}
