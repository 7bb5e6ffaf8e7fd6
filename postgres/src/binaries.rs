//! Where this machine keeps its Postgres programs, and which version they are.

use anyhow::{Context, Result, bail};
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Oldest major version that will do.
const MAJOR_MIN: u32 = 15;

/// What every usable installation has beside `postgres`.
const NEEDED: [&str; 4] = ["initdb", "postgres", "psql", "createdb"];

const INSTALL: &str = "install it with: sudo apt-get install --yes postgresql";

/// One installation: a directory with the programs of one major version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Binaries {
    dir: PathBuf,
    major: u32,
}

impl Binaries {
    /// Finds an installation: `explicit` alone if given, else the one of version `wanted` (that of existing data),
    /// else the newest. Refuses versions below 15.
    pub(crate) fn find(explicit: Option<&Path>, wanted: Option<u32>) -> Result<Binaries> {
        if let Some(dir) = explicit {
            return Binaries::inspect(dir).with_context(|| format!("use the Postgres programs in {}", dir.display()));
        }
        let mut seen = Vec::new();
        let mut usable = Vec::new();
        for dir in candidates() {
            match Binaries::inspect(&dir) {
                Ok(found) => usable.push(found),
                Err(error) => seen.push(format!("{}: {error}", dir.display())),
            }
        }
        let newest = usable.first().cloned();
        match usable.into_iter().find(|found| Some(found.major) == wanted).or(newest) {
            Some(found) => Ok(found),
            None if seen.is_empty() => bail!("there is no Postgres {MAJOR_MIN} or newer on this machine; {INSTALL}"),
            None => bail!("no usable Postgres {MAJOR_MIN} or newer ({}); {INSTALL}", seen.join("; ")),
        }
    }

    /// The major version.
    pub(crate) fn major(&self) -> u32 {
        self.major
    }

    /// Path of one program, e.g. `psql`.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn inspect(dir: &Path) -> Result<Binaries> {
        for name in NEEDED {
            if !dir.join(name).is_file() {
                bail!("it has no {name}");
            }
        }
        let output = Command::new(dir.join("postgres")).arg("--version").output().context("run postgres --version")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let major = major_of(&text).with_context(|| format!("cannot read a version from {:?}", text.trim()))?;
        if major < MAJOR_MIN {
            bail!("it is version {major}, and {MAJOR_MIN} is the oldest that will do");
        }
        Ok(Binaries { dir: dir.to_owned(), major })
    }
}

/// Directories worth a look, best first. Debian keeps the server's programs off PATH, one directory a version.
fn candidates() -> Vec<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    let mut dirs: Vec<PathBuf> = versions.into_iter().map(|(_, dir)| dir).filter(|dir| dir.is_dir()).collect();
    dirs.extend(pg_config_dir());
    let path = env::var_os("PATH").unwrap_or_default();
    dirs.extend(env::split_paths(&path).filter(|dir| dir.join("postgres").is_file()));
    let mut unique = Vec::new();
    for dir in dirs {
        if !unique.contains(&dir) {
            unique.push(dir);
        }
    }
    unique
}

fn pg_config_dir() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let dir = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    // Debian's pg_config names a directory even when only the client library is there.
    dir.join("postgres").is_file().then_some(dir)
}

/// `postgres (PostgreSQL) 15.20 (Debian …)` is 15; `17beta1` is 17.
fn major_of(version: &str) -> Option<u32> {
    let number = version.split_whitespace().nth(2)?;
    let digits = number.bytes().take_while(u8::is_ascii_digit).count();
    number[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_postgres_prints_them() {
        assert_eq!(major_of("postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)\n"), Some(15));
        assert_eq!(major_of("postgres (PostgreSQL) 19beta1\n"), Some(19));
        assert_eq!(major_of("postgres"), None);
    }

    #[test]
    fn a_directory_without_programs_is_refused_by_name() {
        let empty = tempfile::tempdir().expect("a directory");
        let error = format!("{:#}", Binaries::find(Some(empty.path()), None).expect_err("nothing there"));
        assert!(error.contains(&empty.path().display().to_string()) && error.contains("no initdb"), "{error}");
    }

    #[test]
    fn an_older_installation_is_used_for_older_data() {
        let found = Binaries::find(None, None).expect("Postgres");
        assert_eq!(Binaries::find(None, Some(found.major())).expect("the same"), found);
    }
}
