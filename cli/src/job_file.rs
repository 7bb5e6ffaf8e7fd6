//! Reads jobs from a file and refuses, before any call, what the daemon would refuse without looking at its state.

use crate::failure::Failure;
use chiptide_api::Invalid;
use chiptide_api::job::{JOBS_PER_CALL_MAX, JobBody, PriorityBody};
use chiptide_api::problem::read_json;
use chiptide_model::QueuePolicy;
use chiptide_model::policy::{Policy, PriorityClass};
use chiptide_model::{Millis, policy::Bounds};
use serde_json::Value;
use std::io::Read;
use std::path::Path;

/// The jobs of a file (`-` is standard input): one, a list, or several YAML documents of either.
pub(crate) fn read(path: &Path) -> Result<Vec<JobBody>, Failure> {
    let mut text = String::new();
    let read = match path.to_str() {
        Some("-") => std::io::stdin().read_to_string(&mut text),
        _ => std::fs::File::open(path).and_then(|mut file| file.read_to_string(&mut text)),
    };
    read.map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))?;
    parse(&text).map_err(|failure| match failure {
        Failure::Invalid(fault) => Failure::Usage(format!("{}: {fault} ({})", path.display(), fault.code)),
        Failure::Usage(fault) => Failure::Usage(format!("{}: {fault}", path.display())),
        other => other,
    })
}

fn parse(text: &str) -> Result<Vec<JobBody>, Failure> {
    let mut values = Vec::new();
    for document in documents(text)? {
        match document {
            Value::Array(list) => values.extend(list),
            Value::Null => {}
            one => values.push(one),
        }
    }
    match values.len() {
        0 => return Err(Failure::Usage("there is no job in it".into())),
        n if n > JOBS_PER_CALL_MAX => {
            return Err(Failure::Usage(format!("{n} jobs, and {JOBS_PER_CALL_MAX} is the most for one call")));
        }
        _ => {}
    }
    let alone = values.len() == 1;
    let place = |at: usize, fault: Invalid| if alone { fault } else { fault.under(&format!("jobs[{at}]")) };
    let mut jobs = Vec::with_capacity(values.len());
    for (at, value) in values.iter().enumerate() {
        jobs.push(job(value).map_err(|fault| place(at, fault))?);
    }
    Ok(jobs)
}

/// JSON is tried first: it is not quite a part of YAML, and its own complaints are clearer.
fn documents(text: &str) -> Result<Vec<Value>, Failure> {
    if text.trim_start().starts_with(['{', '[']) {
        match serde_json::from_str(text) {
            Ok(value) => return Ok(vec![value]),
            Err(error) if serde_saphyr::from_multiple::<Value>(text).is_err() => {
                return Err(Failure::Usage(format!("malformed JSON: {error}")));
            }
            Err(_) => {}
        }
    }
    serde_saphyr::from_multiple(text).map_err(|error| {
        let first = error.to_string().lines().next().unwrap_or_default().to_owned();
        Failure::Usage(format!("malformed YAML: {first}"))
    })
}

fn job(value: &Value) -> Result<JobBody, Invalid> {
    // By way of bytes, because that reader names the path of the field at fault.
    let bytes = serde_json::to_vec(value).map_err(|error| Invalid::new("malformed_json", ".", error.to_string()))?;
    let body: JobBody = read_json(&bytes)?;
    body.clone().into_spec(&permissive(&body))?;
    Ok(body)
}

/// A policy that knows whatever queue and class the job names, and any grace: those are the daemon's to judge.
fn permissive(body: &JobBody) -> Policy {
    let own = Policy::default();
    let bounds = Bounds { grace_max: Millis::MAX, ..own.bounds.clone() };
    let mut policy = Policy { bounds, ..own };
    policy.queues.insert(body.queue.clone(), QueuePolicy::default());
    if let Some(PriorityBody::Class(name)) = &body.priority_class {
        policy.priority_classes.insert(name.clone(), PriorityClass { preemptible: true, ..PriorityClass::default() });
    }
    policy
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> String {
        parse(text).expect_err("refused").to_string()
    }

    #[test]
    fn one_a_list_and_several_documents() {
        let one = "kind: training\nname: a\nchips: 1\n";
        assert_eq!(parse(one).expect("one").len(), 1);
        assert_eq!(parse(&format!("---\n{one}---\n{one}")).expect("two documents").len(), 2);
        let list = "- {kind: training, name: a, chips: 1}\n- {kind: inference, name: b, share: {fraction: 0.5}}\n";
        assert_eq!(parse(list).expect("a list").len(), 2);
        let json = r#"[{"kind": "training", "name": "a", "chips": 1, "grace": "5s"}]"#;
        assert_eq!(parse(json).expect("JSON")[0].grace, Some(Millis::from_secs(5)));
    }

    #[test]
    fn the_field_at_fault_is_named() {
        let unknown = fault("kind: training\nname: a\nchip: 1\n");
        assert!(unknown.starts_with("chip: unknown field `chip`"), "{unknown}");
        let range = fault("kind: training\nname: a\nchips: 0\n");
        assert_eq!(range, "chips: 0 is not between 1 and 64 (out_of_range)");
        let second = fault("- {kind: training, name: a, chips: 1}\n- {kind: training, name: '', chips: 1}\n");
        assert!(second.starts_with("jobs[1].name: "), "{second}");
        let grace = fault("kind: training\nname: a\nchips: 1\ngrace: soon\n");
        assert!(grace.starts_with("grace: \"soon\" is not a duration"), "{grace}");
        let nested = fault("kind: training\nname: a\nshare: {fraction: 2}\n");
        assert!(nested.starts_with("share.fraction: "), "{nested}");
    }

    #[test]
    fn nonsense_is_refused_in_one_line() {
        for text in ["", "---\n", "a: [b\n", "{\"kind\": ", "[]", "just words"] {
            let fault = fault(text);
            assert!(!fault.is_empty() && !fault.contains('\n'), "{text:?}: {fault}");
        }
    }

    #[test]
    fn names_only_the_daemon_knows_pass() {
        let text = "kind: inference\nname: a\nchips: 1\nqueue: research\npriority_class: gold\ngrace: 12h\n";
        assert_eq!(parse(text).expect("passes")[0].queue, "research");
    }

    #[test]
    fn the_examples_are_jobs() {
        for name in ["train.yaml", "serve.yaml"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name);
            assert_eq!(read(&path).expect("a job").len(), 1, "{name}");
        }
    }
}
