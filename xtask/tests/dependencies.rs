//! Who may import whom (ARCHITECTURE.md). A new edge is a decision: it changes this table and that page together.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Every allowed edge between our crates. `sim → agent` is on purpose: `chiptide-sim fleet` runs the agent's own code.
/// `chiptide-hostile` is for tests only (below).
const ALLOWED: [(&str, &[&str]); 12] = [
    ("chiptide-model", &[]),
    ("chiptide-allocator", &["chiptide-model"]),
    ("chiptide-api", &["chiptide-model"]),
    ("chiptide-postgres", &[]),
    (
        "chiptide-daemon",
        &["chiptide-allocator", "chiptide-api", "chiptide-hostile", "chiptide-model", "chiptide-postgres"],
    ),
    ("chiptide-agent", &["chiptide-api", "chiptide-model"]),
    ("chiptide-cli", &["chiptide-api", "chiptide-model"]),
    ("chiptide-sim", &["chiptide-agent", "chiptide-allocator", "chiptide-api", "chiptide-model", "chiptide-postgres"]),
    ("chiptide-protocol", &[]),
    ("fake-nvml", &[]),
    ("chiptide-hostile", &[]),
    ("xtask", &["chiptide-postgres"]),
];

/// Crates the model may use. It is plain data.
const MODEL: [&str; 2] = ["serde", "uuid"];

/// Crates that would bring I/O, a clock or chance into the allocator.
const NOT_IN_ALLOCATOR: [&str; 5] = ["chrono", "rand", "reqwest", "sqlx", "tokio"];

/// A crate's dependencies: what it ships with, and all of them.
#[derive(Default)]
struct Needs {
    normal: BTreeSet<String>,
    ours: BTreeSet<String>,
}

fn workspace() -> BTreeMap<String, Needs> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let text = |value: &Value| value.as_str().expect("a name").to_owned();
    let list = |value: &Value| value.as_array().expect("a list").clone();
    let mut crates: BTreeMap<String, Needs> = BTreeMap::new();
    for package in list(&metadata["packages"]) {
        let needs = crates.entry(text(&package["name"])).or_default();
        for dependency in list(&package["dependencies"]) {
            if dependency["path"].is_string() {
                needs.ours.insert(text(&dependency["name"]));
            }
            if dependency["kind"].is_null() {
                needs.normal.insert(text(&dependency["name"]));
            }
        }
    }
    crates
}

#[test]
fn our_crates_import_only_whom_they_may() {
    let allowed = BTreeMap::from(ALLOWED);
    let mut faults = Vec::new();
    for (name, needs) in workspace() {
        match allowed.get(name.as_str()) {
            None => faults.push(format!("{name} is not in the table")),
            Some(may) => {
                let more = needs.ours.iter().filter(|other| !may.contains(&other.as_str()));
                faults.extend(more.map(|other| format!("{name} may not import {other}")));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn nothing_ships_with_hostile_input() {
    for (name, needs) in workspace() {
        assert!(!needs.normal.contains("chiptide-hostile"), "{name} may use chiptide-hostile in its tests only");
    }
}

#[test]
fn the_model_is_plain_data() {
    let crates = workspace();
    let more: Vec<_> = crates["chiptide-model"].normal.iter().filter(|name| !MODEL.contains(&name.as_str())).collect();
    assert!(more.is_empty(), "chiptide-model may use {MODEL:?} only, not {more:?}");
}

#[test]
fn the_allocator_has_no_io_no_clock_and_no_chance() {
    let crates = workspace();
    for name in NOT_IN_ALLOCATOR {
        assert!(!crates["chiptide-allocator"].normal.contains(name), "chiptide-allocator may not use {name}");
    }
}
