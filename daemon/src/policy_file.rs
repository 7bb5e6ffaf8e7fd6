//! The policy as a file (YAML or JSON): what an admin decides, read at start. Parts that are left out are as in a new
//! cluster. A file that is wrong is refused whole, with the line and the field at fault, before anything is led.

use crate::policy_document;
use anyhow::Context;
use chiptide_model::Policy;
use std::path::Path;

/// Reads a policy. Its `version` does not matter: the cluster counts.
pub fn read(path: &Path) -> anyhow::Result<Policy> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    parse(&text).with_context(|| format!("policy file {}", path.display()))
}

fn parse(text: &str) -> anyhow::Result<Policy> {
    policy_document::parse(text).map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("{}", faults.join("; "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        format!("{:#}", parse(text).expect_err("refused"))
    }

    #[test]
    fn what_is_left_out_is_as_in_a_new_cluster() {
        let policy = parse("queues:\n  ads: {guaranteed: {nvidia-h20: 64, '*': 80}}\n  lab:\n    limit: {'*': 16}\n");
        let policy = policy.expect("a policy");
        assert_eq!(policy.queues.keys().collect::<Vec<_>>(), ["ads", "lab"]);
        assert_eq!(policy.priority_classes, Policy::default().priority_classes);
        assert_eq!(parse(r#"{"bounds": {"claim": "5m"}}"#).expect("JSON").bounds.claim.to_string(), "5m");
        assert_eq!(parse("{}").expect("nothing said"), Policy::default());
    }

    #[test]
    fn a_fault_is_told_with_its_line_and_field() {
        let unknown = fault("queues:\n  ads:\n    guarantee: {'*': 4}\n");
        assert!(
            unknown.contains("line 3") && unknown.contains("queues.ads") && unknown.contains("guarantee"),
            "{unknown}"
        );
        let value = fault("queues:\n  ads:\n    weight: heavy\n");
        assert!(value.contains("line 3") && value.contains("queues.ads.weight"), "{value}");
        let top = fault("queue:\n  ads: {}\n");
        assert!(top.contains("unknown field `queue`"), "{top}");
        let parent = fault("queues:\n  ads: {parent: nowhere}\n");
        assert!(parent.contains("queues.ads.parent"), "{parent}");
        assert!(!fault("queues: [").is_empty());
    }

    #[test]
    fn the_policy_of_the_readme_is_sound() {
        let readme = include_str!("../../README.md");
        let yaml = readme.split("```yaml\nqueues:").nth(1).and_then(|rest| rest.split("```").next()).expect("a policy");
        let policy = parse(&format!("queues:{yaml}")).expect("a sound policy");
        assert_eq!((policy.queues.len(), policy.calendar.len()), (4, 1));
    }

    #[test]
    fn every_part_of_a_policy_can_be_written_in_a_file() {
        let written = serde_json::to_string(&Policy::default()).expect("JSON");
        assert_eq!(parse(&written).expect("a policy"), Policy::default());
    }
}
