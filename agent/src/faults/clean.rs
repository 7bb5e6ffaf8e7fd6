//! How often, and over how long, a chip must be seen clean before a fault of a class counts as over.

use chiptide_model::{FaultClass, Millis};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Why rules are not valid.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CleanRulesError(String);

impl fmt::Display for CleanRulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for CleanRulesError {}

/// Clean readings in a row, and the time they must span, by class.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CleanRules(BTreeMap<FaultClass, (u32, Duration)>);

impl Default for CleanRules {
    fn default() -> CleanRules {
        let rule = |readings, secs| (readings, Duration::from_secs(secs));
        CleanRules(BTreeMap::from([
            (FaultClass::ResetAtIdle, rule(10, 20)),
            (FaultClass::Reset, rule(10, 20)),
            (FaultClass::Node, rule(10, 20)),
            (FaultClass::Link, rule(30, 300)),
            (FaultClass::Unknown, rule(30, 600)),
            (FaultClass::Foreign, rule(3, 5)),
        ]))
    }
}

impl CleanRules {
    /// The defaults with some replaced: class to `readings/time`, as in `unknown = "30/10m"`.
    pub fn with(given: &BTreeMap<String, String>) -> Result<CleanRules, CleanRulesError> {
        let mut rules = CleanRules::default();
        for (word, rule) in given {
            let wrong = |detail: String| CleanRulesError(format!("clean.{word}: {detail}"));
            let class: FaultClass = word.parse().map_err(|error| wrong(format!("{error}")))?;
            if !class.ends_by_evidence() {
                return Err(wrong("no evidence ends a fault of this class".into()));
            }
            let (readings, span) = rule.split_once('/').ok_or_else(|| wrong("must be readings/time".into()))?;
            let readings = readings.trim().parse::<u32>().ok().filter(|readings| *readings > 0);
            let readings = readings.ok_or_else(|| wrong("readings must be a number from 1".into()))?;
            let span: Millis = span.trim().parse().map_err(|error| wrong(format!("{error}")))?;
            rules.0.insert(class, (readings, Duration::from_millis(span.0)));
        }
        Ok(rules)
    }

    /// Whether so many clean readings over such a time end a fault of this class.
    pub fn suffice(&self, class: FaultClass, readings: u32, span: Duration) -> bool {
        let enough = |(least, over): &(u32, Duration)| readings >= *least && span >= *over;
        class.ends_by_evidence() && self.0.get(&class).is_some_and(enough)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_can_be_replaced_by_class() {
        let given = BTreeMap::from([("unknown".to_owned(), "2/1s".to_owned())]);
        let rules = CleanRules::with(&given).expect("valid");
        assert!(rules.suffice(FaultClass::Unknown, 2, Duration::from_secs(1)));
        assert!(!rules.suffice(FaultClass::Unknown, 1, Duration::from_secs(9)));
        assert!(!rules.suffice(FaultClass::Human, 1000, Duration::from_secs(9000)), "nothing but an admin");
    }

    #[test]
    fn what_is_no_rule_is_named() {
        for (class, rule) in [("human", "3/1s"), ("grave", "3/1s"), ("reset", "3"), ("reset", "0/1s"), ("reset", "3/1")]
        {
            let given = BTreeMap::from([(class.to_owned(), rule.to_owned())]);
            let error = CleanRules::with(&given).expect_err("not valid").to_string();
            assert!(error.starts_with(&format!("clean.{class}: ")), "{error}");
        }
    }
}
