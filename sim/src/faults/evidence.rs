//! Gathers what the witnesses left behind. Lines cut by a kill are no lines.

use super::canary::Testimony;
use super::checker::Proof;
use anyhow::Context;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// What canaries wrote, one list a process.
pub fn testimonies(root: &Path) -> anyhow::Result<Vec<Vec<Testimony>>> {
    let files = fs::read_dir(root.join("testimonies")).context("look for testimonies")?;
    let read = |path: &Path| -> anyhow::Result<Vec<Testimony>> {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Ok(whole_lines(&text).filter_map(|line| serde_json::from_str(line).ok()).collect())
    };
    files.flatten().map(|file| read(&file.path())).collect()
}

/// Proofs that agents wrote down as accepted.
pub fn proofs(agent_log: &Path) -> anyhow::Result<Vec<Proof>> {
    let text = fs::read_to_string(agent_log).with_context(|| format!("read {}", agent_log.display()))?;
    let lines = whole_lines(&text).filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let proof = |line: Value| {
        let of = |name: &str| line.get(name).and_then(Value::as_str).map(str::to_owned);
        (of("message")? == "proven vacant").then_some(())?;
        Some(Proof { chip: of("chip")?, lease: of("lease")? })
    };
    Ok(lines.filter_map(proof).collect())
}

/// The highest epoch seen, by chip, from an agent's state file: a line with a checksum, then JSON.
pub fn epochs(state: &Path) -> anyhow::Result<BTreeMap<String, u64>> {
    let path = state.join("epochs");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        // An agent that was never ordered anything has seen nothing.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let json = text.split_once('\n').context("a first line with a checksum")?.1;
    let seen: Value = serde_json::from_str(json).with_context(|| format!("understand {}", path.display()))?;
    let seen = seen.get("seen").and_then(Value::as_object).context("the epochs seen")?;
    Ok(seen.iter().filter_map(|(chip, seen)| Some((chip.clone(), seen.get("epoch")?.as_u64()?))).collect())
}

fn whole_lines(text: &str) -> impl Iterator<Item = &str> {
    text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_is_no_line() {
        assert_eq!(whole_lines("a\nb\n{\"cut").collect::<Vec<_>>(), ["a", "b"]);
    }
}
