//! House rules that no compiler checks.

use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// Above this a file is worth a second look.
const LINES_MAX: usize = 400;
/// Files of these kinds are read.
const EXTENSIONS: [&str; 7] = ["rs", "sql", "toml", "sh", "ts", "tsx", "css"];
/// Folders that are made, not written.
const MADE: [&str; 5] = ["target", "node_modules", "dist", ".git", ".sqlx"];
/// Unfinished work. (In pieces, so that this file does not find itself.)
const MARKERS: [&str; 5] = [
    concat!("to", "do!("),
    concat!("unimple", "mented!("),
    concat!("db", "g!("),
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
];
/// What the crates that only decide must not reach for outside their tests.
const IMPURE: [&str; 7] =
    ["SystemTime::now", "Instant::now", "Utc::now", "std::fs", "std::net", "std::process", "std::thread"];
/// The crates that only decide.
const PURE: [&str; 2] = ["model/src", "allocator/src"];

/// Prints what is long; refuses what is unfinished or impure.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut paths = Vec::new();
    walk(root, &mut paths)?;
    paths.sort();
    let mut faults = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let name = path.strip_prefix(root).unwrap_or(&path);
        let lines = text.lines().count();
        if lines > LINES_MAX {
            println!("long: {} ({lines} lines)", name.display());
        }
        faults.extend(faults_in(name, &text));
    }
    if faults.is_empty() {
        return Ok(());
    }
    bail!("not done yet:\n{}", faults.join("\n"))
}

fn faults_in(name: &Path, text: &str) -> Vec<String> {
    let pure = PURE.iter().any(|crate_dir| name.starts_with(crate_dir));
    let mut in_tests = false;
    let mut faults = Vec::new();
    for (at, line) in text.lines().enumerate() {
        in_tests |= line.trim_start().starts_with("#[cfg(test)]");
        let unfinished = MARKERS.iter().find(|marker| line.contains(*marker));
        let impure = IMPURE.iter().find(|word| pure && !in_tests && line.contains(*word));
        for word in unfinished.into_iter().chain(impure) {
            faults.push(format!("  {}:{}: {word}", name.display(), at + 1));
        }
    }
    faults
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let entry = entry.with_context(|| format!("read {}", dir.display()))?;
        let (path, name) = (entry.path(), entry.file_name());
        let kind = entry.file_type().with_context(|| format!("look at {}", path.display()))?;
        if kind.is_dir() && !MADE.iter().any(|made| name == *made) {
            walk(&path, found)?;
        } else if kind.is_file() && path.extension().is_some_and(|ext| EXTENSIONS.iter().any(|known| ext == *known)) {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_named_by_place() {
        let marker = MARKERS[2];
        let text =
            format!("fn a() {{\n    {marker}1);\n    Instant::now();\n}}\n#[cfg(test)]\nmod t {{ Instant::now() }}\n");
        assert_eq!(faults_in(Path::new("allocator/src/a.rs"), &text).len(), 2);
        assert_eq!(faults_in(Path::new("daemon/src/a.rs"), &text), [format!("  daemon/src/a.rs:2: {}", MARKERS[2])]);
    }
}
