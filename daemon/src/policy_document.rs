//! Policies as people write them: YAML, of which JSON is a part. A document that is wrong is refused whole, each fault with
//! its field and its line.

use chiptide_model::{Policy, PolicyFault};
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// One thing that is wrong with a document.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The path of the field.
    pub field: String,
    /// Its line, from 1, where it has one.
    pub line: Option<u64>,
    /// What is wrong.
    pub problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}, ")?;
        }
        write!(f, "field {}: {}", self.field, self.problem)
    }
}

/// Reads a policy, or tells everything that is wrong with it; never an empty list.
pub fn parse(text: &str) -> Result<Policy, Vec<Fault>> {
    let mut field = String::new();
    let parsed = serde_saphyr::with_deserializer_from_str(text, |reader| {
        serde_path_to_error::deserialize::<_, Policy>(reader).map_err(|error| {
            field = error.path().to_string();
            error.into_inner()
        })
    });
    let policy = parsed.map_err(|error| {
        let said = error.to_string();
        let problem = said.lines().next().unwrap_or_default().trim().to_owned();
        vec![Fault { field, line: error.location().map(|at| at.line()), problem }]
    })?;
    let faults = policy.faults();
    if faults.is_empty() { Ok(policy) } else { Err(faults.into_iter().map(|fault| placed(text, fault)).collect()) }
}

/// A fault with the line that its field has in the document.
pub fn placed(text: &str, fault: PolicyFault) -> Fault {
    Fault { line: line_of(text, &fault.field), field: fault.field, problem: fault.problem }
}

/// The line of a field, or of the nearest one around it that is in the document.
pub fn line_of(text: &str, field: &str) -> Option<u64> {
    let mut path: Vec<&str> = field.split('.').collect();
    loop {
        let found = serde_saphyr::with_deserializer_from_str(text, |reader| Descent(&path).deserialize(reader));
        if let Err(error) = found {
            return error.location().map(|at| at.line());
        }
        path.pop()?;
        if path.is_empty() {
            return None;
        }
    }
}

/// Goes down a path and ends there with an error, which knows where in the text it is. The names of queues and classes
/// may hold dots, so a key may take up several steps. An item of a list is named by its number or its `name`.
struct Descent<'a>(&'a [&'a str]);

impl<'de> DeserializeSeed<'de> for Descent<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        if self.0.is_empty() {
            return Err(serde::de::Error::custom("here"));
        }
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Descent<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(key) = entries.next_key::<String>()? {
            let steps = key.split('.').count();
            let is_it = self.0.len() >= steps && self.0[..steps].iter().copied().eq(key.split('.'));
            match is_it {
                true => entries.next_value_seed(Descent(&self.0[steps..]))?,
                false => drop(entries.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let wanted: Option<usize> = self.0[0].parse().ok();
        let mut at = 0;
        loop {
            let rest = if wanted == Some(at) { &self.0[1..] } else { &["\0"][..] };
            if items.next_element_seed(Descent(rest))?.is_none() {
                return Ok(());
            }
            at += 1;
        }
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_none<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_some<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> String {
        let told = parse(text).expect_err("refused");
        told.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_contradicts_itself_is_told_with_its_line() {
        let text = "queues:\n  ads:\n    parent: lab\n  lab:\n    parent: ads\n    guaranteed: {'*': 9}\n    limit:\n      '*': 4\n";
        let told = faults(text);
        assert!(told.contains("line 3, field queues.ads.parent: it lies on a circle"), "{told}");
        assert!(told.contains("line 5, field queues.lab.parent: it lies on a circle"), "{told}");
        assert!(told.contains("line 6, field queues.lab.guaranteed: 9 chips of *, above its limit of 4"), "{told}");
    }

    #[test]
    fn lists_and_json_have_lines_too() {
        let text = "queues: [ads]\ncalendar:\n- {name: a, from: 1, to: 2, queue: ads, chips: 1}\n- name: b\n  from: 9\n  to: 3\n  queue: ads\n  chips: 1\n";
        assert!(faults(text).contains("line 6, field calendar.1.to: after `from`"), "{}", faults(text));
        let json = "{\n \"queues\": {\n  \"a.b\": {\n   \"weight\": 0\n  }\n }\n}";
        assert!(faults(json).contains("line 4, field queues.a.b.weight"), "{}", faults(json));
    }

    #[test]
    fn what_is_not_there_has_the_line_of_what_is_around_it() {
        assert_eq!(line_of("queues:\n  ads:\n    weight: 2\n", "queues.ads.guaranteed.x"), Some(3));
        assert_eq!(line_of("bounds: {}\n", "queues.ads"), None);
        assert!(!faults("queues: [").is_empty());
    }
}
