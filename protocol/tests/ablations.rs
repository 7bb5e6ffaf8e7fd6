//! Each rule switched off: the table and the stories of `docs/protocol.md`, made anew and compared with the page.
//! `UPDATE_EXPECT=1` writes them.

use chiptide_protocol::ablations::{self, Ablation, Outcome};
use chiptide_protocol::rules::Rule;
use chiptide_protocol::story::tell;
use expect_test::expect_file;
use std::fmt::Write;

const PAGE: &str = include_str!("../../docs/protocol.md");
const HERE: &str = "<!-- made by protocol/tests/ablations.rs -->\n";

#[test]
fn the_page_says_what_comes_of_each_rule_that_is_switched_off() {
    let outcomes: Vec<(&Ablation, Outcome)> = ablations::ALL.iter().map(|one| (one, one.explore())).collect();
    for (ablation, outcome) in &outcomes {
        let name = ablation.name();
        assert!(outcome.lost.is_some() || !ablation.covered.is_empty(), "{name}: nothing is lost, and nobody says why");
        assert!(outcome.lost.is_none() || ablation.covered.is_empty(), "{name}: said to be covered, and is not");
    }
    let written = PAGE.split(HERE).next().unwrap_or_default();
    expect_file!["../../docs/protocol.md"].assert_eq(&format!("{written}{HERE}{}", told(&outcomes)));
}

#[test]
fn every_rule_is_switched_off_once_alone() {
    let alone: Vec<Rule> = ablations::ALL.iter().filter(|one| one.off.len() == 1).map(|one| one.off[0]).collect();
    assert_eq!(alone, Rule::ALL);
}

fn told(outcomes: &[(&Ablation, Outcome)]) -> String {
    let mut page = String::from("\n### The rules\n\n| rule | says | kept by |\n|---|---|---|\n");
    for rule in Rule::ALL {
        writeln!(page, "| {} | {} | `{}` |", rule.label(), rule.text(), rule.code()).expect("a string");
    }
    page.push_str("\n### One rule less\n\n| off | world | states | lost, in so few steps |\n|---|---|---|---|\n");
    for (ablation, outcome) in outcomes {
        let lost = match &outcome.lost {
            Some((property, way)) => format!("**{}** in {}", &property[..2].trim(), way.len()),
            None if outcome.whole => format!("nothing: {}", ablation.covered),
            None => format!("nothing in the first {}: {}", outcome.states, ablation.covered),
        };
        writeln!(page, "| {} | {} | {} | {lost} |", ablation.name(), ablation.world, outcome.states).expect("a string");
    }
    page.push_str("\n### The shortest ways there\n");
    for (ablation, outcome) in outcomes {
        let Some((property, way)) = &outcome.lost else { continue };
        writeln!(page, "\n**{}** off loses *{property}*:", ablation.name()).expect("a string");
        way.iter().enumerate().for_each(|(n, action)| {
            writeln!(page, "{}. {}", n + 1, tell(*action)).expect("a string");
        });
    }
    page
}
