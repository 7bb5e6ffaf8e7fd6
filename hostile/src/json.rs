//! Spoiled JSON: the structure is kept and single values are replaced, taken away, renamed or doubled, so that what is spoiled
//! gets past the parser to whoever judges the values.

use crate::bytes_near;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

/// One thing done to a document. The place counts through all its values.
#[derive(Clone, Debug)]
enum Edit {
    Replace(Index, Value),
    Remove(Index),
    Rename(Index, &'static str),
    Add(Index, &'static str, Value),
    /// An entry of a list, so many times.
    Double(Index, usize),
    /// A value in place of another of the same document.
    Move(Index, Index),
}

/// How to reach a value: positions, of entries or of keys in their order.
type Path = Vec<usize>;

fn paths(value: &Value, here: &mut Path, found: &mut Vec<Path>) {
    found.push(here.clone());
    let children: Vec<&Value> = match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(fields) => fields.values().collect(),
        _ => return,
    };
    for (at, child) in children.into_iter().enumerate() {
        here.push(at);
        paths(child, here, found);
        here.pop();
    }
}

fn at<'a>(mut value: &'a mut Value, path: &[usize]) -> Option<&'a mut Value> {
    for step in path {
        value = match value {
            Value::Array(items) => items.get_mut(*step)?,
            Value::Object(fields) => fields.values_mut().nth(*step)?,
            _ => return None,
        };
    }
    Some(value)
}

impl Edit {
    fn on(&self, document: &mut Value) -> Option<()> {
        let mut all = Vec::new();
        paths(document, &mut Vec::new(), &mut all);
        let place = |index: &Index| all[index.index(all.len())].clone();
        match self {
            Edit::Replace(index, value) => *at(document, &place(index))? = value.clone(),
            Edit::Move(from, to) => {
                let moved = at(document, &place(from))?.clone();
                *at(document, &place(to))? = moved;
            }
            Edit::Add(index, key, value) => match at(document, &place(index))? {
                Value::Object(fields) => drop(fields.insert((*key).to_owned(), value.clone())),
                Value::Array(items) => items.push(value.clone()),
                _ => {}
            },
            Edit::Remove(index) | Edit::Rename(index, _) | Edit::Double(index, _) => {
                let path = place(index);
                let (last, above) = path.split_last()?;
                match (at(document, above)?, self) {
                    (Value::Array(items), Edit::Double(_, times)) => {
                        let item = items.get(*last)?.clone();
                        items.extend(std::iter::repeat_n(item, *times));
                    }
                    (Value::Array(items), _) => drop(items.remove(*last)),
                    (Value::Object(fields), edit) => {
                        let key = fields.keys().nth(*last)?.clone();
                        let value = fields.remove(&key)?;
                        if let Edit::Rename(_, name) = edit {
                            fields.insert((*name).to_owned(), value);
                        }
                    }
                    _ => {}
                }
            }
        }
        Some(())
    }
}

fn odd() -> impl Strategy<Value = Value> {
    let deep = (0..40).fold(json!(1), |inner, _| json!([inner]));
    let odd = vec![
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1),
        json!(255),
        json!(65_536),
        json!(u32::MAX),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1e308),
        json!(-0.0),
        json!(0.5),
        json!(""),
        json!(" "),
        json!("\0"),
        json!("a\0b"),
        json!("\u{202e}x"),
        json!("../../etc/passwd"),
        json!("x".repeat(5_000)),
        json!("'; drop table events; --"),
        json!("0s"),
        json!("18446744073709551615s"),
        json!("-5s"),
        json!("9999999999999d"),
        json!("1e9h"),
        json!("00000000-0000-0000-0000-000000000000"),
        json!("9999-12-31T23:59:59Z"),
        json!("0000-01-01T00:00:00Z"),
        json!("+262142-12-31T23:59:59Z"),
        json!("default"),
        json!("infinity"),
        json!([]),
        json!({}),
        json!([[]]),
        json!({"state": "free"}),
        json!([null, 1, "x"]),
        deep,
    ];
    let words = "[a-z0-9_.-]{1,12}".prop_map(Value::String);
    let numbers = any::<i64>().prop_map(|number| json!(number));
    let wild = ".{0,20}".prop_map(Value::String);
    prop_oneof![6 => select(odd), 1 => words, 1 => numbers, 1 => wild]
}

fn edit() -> impl Strategy<Value = Edit> {
    let names = vec!["", "id", "state", "__proto__", "kind", "chips", "x\0", "name"];
    prop_oneof![
        5 => (any::<Index>(), odd()).prop_map(|(at, value)| Edit::Replace(at, value)),
        1 => any::<Index>().prop_map(Edit::Remove),
        1 => (any::<Index>(), select(names.clone())).prop_map(|(at, name)| Edit::Rename(at, name)),
        1 => (any::<Index>(), select(names), odd()).prop_map(|(at, name, value)| Edit::Add(at, name, value)),
        1 => (any::<Index>(), 1..40_usize).prop_map(|(at, times)| Edit::Double(at, times)),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Edit::Move(from, to)),
    ]
}

/// Values near one of these.
pub fn values_near(documents: Vec<Value>) -> impl Strategy<Value = Value> {
    (select(documents), vec(edit(), 0..4)).prop_map(|(mut document, edits)| {
        for edit in edits {
            // An edit that does not apply to what the ones before have left does nothing.
            let _ = edit.on(&mut document);
        }
        document
    })
}

/// Bytes of a document near one of these: most with spoiled values, some spoiled below that.
pub fn json_near(documents: Vec<Value>) -> impl Strategy<Value = Vec<u8>> {
    let bytes = documents.iter().map(|document| document.to_string().into_bytes()).collect();
    let spoiled = values_near(documents).prop_map(|document| document.to_string().into_bytes());
    prop_oneof![5 => spoiled, 1 => bytes_near(bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn most_of_what_comes_out_is_json_and_differs_from_what_went_in() {
        let document = json!({"a": [1, {"b": "c"}], "d": null});
        let (json, changed) = (Cell::new(0), Cell::new(0));
        crate::check(400, json_near(vec![document.clone()]), |bytes| {
            let value = serde_json::from_slice::<Value>(&bytes).ok();
            json.set(json.get() + u32::from(value.is_some()));
            changed.set(changed.get() + u32::from(value.is_some_and(|value| value != document)));
            Ok(())
        });
        assert!(json.get() > 250 && changed.get() > 150, "{} of 400 are JSON, {} others", json.get(), changed.get());
    }
}
