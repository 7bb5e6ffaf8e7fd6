//! What would break a client: two contracts are compared, and everything is named that the older one promised and the newer
//! one does not keep.

use serde_json::{Value, json};
use std::collections::BTreeSet;

const METHODS: [&str; 5] = ["get", "post", "put", "delete", "patch"];

/// Whether a schema is of what clients send or of what they get: what may change differs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Sent,
    Got,
}

/// Everything in `new` that breaks a client of `old`.
pub(crate) fn changes(old: &Value, new: &Value) -> Vec<String> {
    let mut comparison = Comparison { old, new, found: Vec::new(), seen: BTreeSet::new() };
    for (path, item) in fields(&old["paths"]) {
        for method in METHODS.iter().filter(|method| item.get(**method).is_some()) {
            let (before, after) = (&item[*method], &new["paths"][path][*method]);
            comparison.operation(&format!("{} {path}", method.to_uppercase()), before, after);
        }
    }
    comparison.found
}

struct Comparison<'a> {
    old: &'a Value,
    new: &'a Value,
    found: Vec<String>,
    /// Pairs of named schemas that were compared already.
    seen: BTreeSet<(String, String, bool)>,
}

impl<'a> Comparison<'a> {
    fn operation(&mut self, place: &str, old: &'a Value, new: &'a Value) {
        if new.is_null() {
            self.found.push(format!("{place} is gone"));
            return;
        }
        let same =
            |parameter: &Value, other: &Value| parameter["name"] == other["name"] && parameter["in"] == other["in"];
        for before in list(&old["parameters"]) {
            let place = format!("{place}, parameter {}", before["name"]);
            match list(&new["parameters"]).iter().find(|after| same(after, before)) {
                None => self.found.push(format!("{place} is gone")),
                Some(after) => self.schema(&place, &before["schema"], &after["schema"], Way::Sent),
            }
        }
        for after in list(&new["parameters"]).iter().filter(|parameter| parameter["required"] == true) {
            let was_required = list(&old["parameters"]).iter().any(|p| same(p, after) && p["required"] == true);
            if !was_required {
                self.found.push(format!("{place}, parameter {} is required now", after["name"]));
            }
        }
        if new["requestBody"]["required"] == true && old["requestBody"]["required"] != true {
            self.found.push(format!("{place} requires a body now"));
        }
        self.contents(&format!("{place}, body"), &old["requestBody"], &new["requestBody"], Way::Sent);
        for (status, before) in fields(&old["responses"]).filter(|(status, _)| status.starts_with('2')) {
            let place = format!("{place}, answer {status}");
            match new["responses"].get(status) {
                None => self.found.push(format!("{place} is gone")),
                Some(after) => self.contents(&place, before, after, Way::Got),
            }
        }
    }

    fn contents(&mut self, place: &str, old: &'a Value, new: &'a Value, way: Way) {
        for (media, before) in fields(&old["content"]) {
            match new["content"].get(media) {
                None => self.found.push(format!("{place} is no {media} any more")),
                Some(after) => self.schema(place, &before["schema"], &after["schema"], way),
            }
        }
    }

    fn schema(&mut self, place: &str, old: &'a Value, new: &'a Value, way: Way) {
        if let (Some(before), Some(after)) = (old["$ref"].as_str(), new["$ref"].as_str())
            && !self.seen.insert((before.to_owned(), after.to_owned(), way == Way::Sent))
        {
            return;
        }
        let (old, new) = (resolved(self.old, old), resolved(self.new, new));
        self.types(place, old, new, way);
        self.words(place, old, new, way);
        for (name, before) in fields(&old["properties"]) {
            match new["properties"].get(name) {
                None => self.found.push(format!("{place}, field {name} is gone")),
                Some(after) => self.schema(&format!("{place}, field {name}"), before, after, way),
            }
        }
        let (were, are) = (required(old), required(new));
        match way {
            Way::Sent => {
                self.found.extend(are.difference(&were).map(|name| format!("{place}, field {name} is required now")))
            }
            Way::Got => self.found.extend(
                were.difference(&are)
                    .filter(|name| new["properties"].get(**name).is_some())
                    .map(|name| format!("{place}, field {name} may be absent now")),
            ),
        }
        if let (Some(before), Some(after)) = (old.get("items"), new.get("items")) {
            self.schema(&format!("{place}[]"), before, after, way);
        }
        for of in ["oneOf", "anyOf", "allOf"] {
            let (before, after) = (list(&old[of]), list(&new[of]));
            if after.len() < before.len() {
                self.found.push(format!("{place} has {} variants fewer", before.len() - after.len()));
            }
            // Variants have no names: each is compared with the one that breaks least of it.
            for variant in before {
                let trials = after.iter().map(|other| {
                    let seen = self.seen.clone();
                    let mut trial = Comparison { old: self.old, new: self.new, found: Vec::new(), seen };
                    trial.schema(&format!("{place} ({of})"), variant, other, way);
                    trial.found
                });
                self.found.extend(trials.min_by_key(Vec::len).unwrap_or_default());
            }
        }
    }

    fn types(&mut self, place: &str, old: &Value, new: &Value, way: Way) {
        let (were, are) = (types(old), types(new));
        let lost: Vec<_> = match way {
            Way::Sent => were.difference(&are).collect(),
            Way::Got => are.difference(&were).collect(),
        };
        if !were.is_empty() && !are.is_empty() && !lost.is_empty() {
            self.found.push(format!("{place} was {were:?} and is {are:?}"));
        }
    }

    fn words(&mut self, place: &str, old: &Value, new: &Value, way: Way) {
        let (were, are) = (list(&old["enum"]), list(&new["enum"]));
        let is_tag = were.len() == 1 && are.len() == 1 && were != are;
        if is_tag || (way == Way::Sent && !are.is_empty()) {
            let gone = were.iter().filter(|word| !are.contains(word));
            self.found.extend(gone.map(|word| format!("{place} does not take {word} any more")));
        }
    }
}

fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str().and_then(|path| document.pointer(path.trim_start_matches('#'))) {
        Some(named) => named,
        None => schema,
    }
}

fn fields(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn required(schema: &Value) -> BTreeSet<&str> {
    list(&schema["required"]).iter().filter_map(Value::as_str).collect()
}

fn types(schema: &Value) -> BTreeSet<&str> {
    match &schema["type"] {
        Value::String(word) => [word.as_str()].into(),
        other => list(other).iter().filter_map(Value::as_str).collect(),
    }
}

#[test]
fn each_kind_of_breaking_change_is_named_and_additions_are_not() {
    let old = json!({
        "paths": {"/v1/x": {"post": {
            "parameters": [{"name": "a", "in": "query", "schema": {"type": "string"}}],
            "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/In"}}}},
            "responses": {"200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Out"}}}}}
        }}},
        "components": {"schemas": {
            "In": {"type": "object", "properties": {"kind": {"type": "string", "enum": ["p", "q"]}, "b": {"type": "string"}}},
            "Out": {"type": "object", "required": ["id"], "properties": {"id": {"type": "string"}}}
        }}
    });
    let with = |pointer: &str, value: Value| {
        let mut new = old.clone();
        *new.pointer_mut(pointer).expect("there") = value;
        changes(&old, &new)
    };
    let schemas = "/components/schemas";
    assert_eq!(changes(&old, &old), [""; 0]);
    assert_eq!(with("/paths/~1v1~1x", json!({})), ["POST /v1/x is gone"]);
    assert_eq!(with("/paths/~1v1~1x/post/parameters", json!([])), ["POST /v1/x, parameter \"a\" is gone"]);
    assert_eq!(with("/paths/~1v1~1x/post/responses", json!({})), ["POST /v1/x, answer 200 is gone"]);
    let kind = format!("{schemas}/In/properties/kind/enum");
    assert_eq!(with(&kind, json!(["p", "r"])), ["POST /v1/x, body, field kind does not take \"q\" any more"]);
    let fields = format!("{schemas}/In");
    let needed = json!({"type": "object", "required": ["c"],
        "properties": {"kind": {"type": "string"}, "b": {"type": "string"}, "c": {"type": "string"}}});
    assert_eq!(with(&fields, needed), ["POST /v1/x, body, field c is required now"]);
    let answer = format!("{schemas}/Out/properties/id/type");
    assert_eq!(
        with(&answer, json!("integer")),
        [r#"POST /v1/x, answer 200, field id was {"string"} and is {"integer"}"#]
    );
    let more = json!({"id": {"type": "string"}, "more": {"type": "string"}});
    assert_eq!(with(&format!("{schemas}/Out/properties"), more), [""; 0]);
}
