//! `api.yaml` is generated from the routes; the committed file must not differ, keep what was released, and say what a reader
//! needs.

use crate::breaking;
use crate::common::Daemon;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn said() -> Value {
    serde_saphyr::from_str(&chiptide_daemon::routes::api_yaml()).expect("YAML")
}

#[test]
fn api_yaml_is_what_the_routes_say() {
    let path = root().join("api.yaml");
    let said = chiptide_daemon::routes::api_yaml();
    if std::env::var_os("UPDATE_API").is_some() {
        std::fs::write(&path, &said).expect("written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == said, "api.yaml is stale: run `UPDATE_API=1 cargo test -p chiptide-daemon --test http`");
}

#[test]
fn what_was_released_still_holds() {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(root().join("api/released")).expect("a folder") {
        let path = entry.expect("readable").path();
        let released: Value = serde_saphyr::from_str(&std::fs::read_to_string(&path).expect("readable")).expect("YAML");
        found.extend(
            breaking::changes(&released, &said()).into_iter().map(|change| format!("{}: {change}", path.display())),
        );
    }
    assert!(found.is_empty(), "this breaks clients of what was released:\n{}", found.join("\n"));
}

#[test]
fn every_operation_says_what_a_reader_needs() {
    let (document, mut faults, mut ids) = (said(), Vec::new(), BTreeSet::new());
    let tags: Vec<&Value> = document["tags"].as_array().expect("tags").iter().map(|tag| &tag["name"]).collect();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let place = format!("{method} {path}");
            let mut must = |holds: bool, what: &str| {
                if !holds {
                    faults.push(format!("{place}: {what}"))
                }
            };
            must(ids.insert(operation["operationId"].to_string()), "its operationId is absent or another's");
            must(tags.contains(&&operation["tags"][0]), "it has no tag that the document lists");
            must(is_text(&operation["summary"]) || is_text(&operation["description"]), "it has no summary");
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            for parameter in &parameters {
                let is_in_path = path.contains(&format!("{{{}}}", parameter["name"].as_str().unwrap_or_default()));
                must(is_text(&parameter["description"]), &format!("parameter {} is not described", parameter["name"]));
                must(
                    (parameter["in"] == "path") == is_in_path,
                    &format!("parameter {} is elsewhere", parameter["name"]),
                );
            }
            must(
                path.matches('{').count() == parameters.iter().filter(|p| p["in"] == "path").count(),
                "a part of its path is no parameter",
            );
            let is_list = parameters.iter().any(|parameter| parameter["name"] == "cursor");
            must(!is_list || parameters.iter().any(|parameter| parameter["name"] == "limit"), "a list without limit");
            for (status, response) in operation["responses"].as_object().expect("responses") {
                must(is_text(&response["description"]), &format!("answer {status} is not described"));
                let is_problem = !status.starts_with('2') && status != "304" && path != "/readyz";
                must(
                    !is_problem || response["content"].get("application/problem+json").is_some(),
                    &format!("answer {status} is no problem"),
                );
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn is_text(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.trim().is_empty())
}

/// Codes are words in the sources; each is in the list for people, and nothing else is.
#[test]
fn every_code_is_in_the_list_of_errors() {
    let mut codes = BTreeSet::new();
    for folder in ["daemon/src", "api/src", "model/src"] {
        collect(&root().join(folder), &mut codes);
    }
    let text = std::fs::read_to_string(root().join("docs/errors.md")).expect("readable");
    let listed = text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).map(str::to_owned);
    assert_eq!(listed.collect::<BTreeSet<_>>(), codes, "docs/errors.md lists other codes than the sources have");
}

fn collect(folder: &Path, codes: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            collect(&path, codes);
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("readable");
        for rest in text.split("Refused::new(").skip(1).chain(text.split("Invalid::new(").skip(1)) {
            let code =
                rest.split('"').nth(1).filter(|_| !rest.trim_start().starts_with(|c: char| c.is_ascii_lowercase()));
            let is_code = |code: &&str| !code.is_empty() && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            codes.extend(code.filter(is_code).map(str::to_owned));
        }
    }
}

#[tokio::test]
async fn the_contract_is_served_and_problems_name_their_request() {
    let daemon = Daemon::start().await;
    let client = reqwest::Client::new();
    for (path, kind, part) in [
        ("/docs", "text/html; charset=utf-8", "createJobs"),
        ("/openapi.json", "application/json", "createJobs"),
        ("/openapi.yaml", "application/yaml", "createJobs"),
    ] {
        let answer = client.get(format!("{}{path}", daemon.base)).send().await.expect("an answer");
        assert_eq!(answer.headers()["content-type"], kind);
        assert!(answer.text().await.expect("text").contains(part), "{path}");
    }
    let get = |path: &str| client.get(format!("{}{path}", daemon.base)).bearer_auth(&daemon.token);
    let zipped = get("/openapi.json").header("accept-encoding", "gzip").send().await.expect("an answer");
    assert_eq!(zipped.headers()["content-encoding"], "gzip");
    let refused = get("/v1/jobs?limit=0").header("x-request-id", "mine-7").send().await.expect("an answer");
    assert_eq!(refused.headers()["x-request-id"], "mine-7");
    let problem: Value = refused.json().await.expect("a problem");
    assert_eq!((problem["code"].as_str(), problem["request_id"].as_str()), (Some("invalid_parameter"), Some("mine-7")));
    daemon.stop().await;
}
