//! Stories of faults: seen, told, ended by evidence.

use super::*;
use crate::scripted::{chip, reading_at};

/// A node of one chip, read every two seconds.
struct Story {
    book: Book,
    chip: ChipNow,
    begun: Instant,
    second: u64,
}

fn story() -> Story {
    let rules = BTreeMap::from([("reset", "3/4s"), ("unknown", "3/4s"), ("node", "3/4s"), ("link", "3/4s")]);
    let rules = rules.into_iter().map(|(class, rule)| (class.to_owned(), rule.to_owned())).collect();
    let mut chip = chip("c0");
    chip.chip.pci_bus_id = Some("00000000:17:00.0".into());
    chip.reading.ecc_uncorrected = Some(0);
    let table = XidTable::shipped().expect("valid");
    let book = Book::open(table, CleanRules::with(&rules).expect("valid"), "boot-1", Kept::default());
    Story { book, chip, begun: Instant::now(), second: 1000 }
}

impl Story {
    fn now(&self) -> Timestamp {
        Timestamp(self.second as i64 * 1000)
    }

    fn reads(&mut self, times: u64) -> &mut Story {
        for _ in 0..times {
            self.second += 2;
            let taken = self.begun + Duration::from_secs(self.second);
            self.book.weigh(&reading_at(taken, [self.chip.clone()]), self.now());
        }
        self
    }

    fn sees(&mut self, xid: u32) -> bool {
        let seen = Sighting { which: Which::At((0, 0x17, 0)), xid, wanted: None, detail: String::new() };
        self.book.see(&seen, &reading_at(self.begun, [self.chip.clone()]), self.now())
    }

    /// What is told, and taken in by the daemon.
    fn tells(&mut self) -> Vec<String> {
        let bodies = self.book.bodies();
        self.book.told(&bodies);
        let line = |body: &FaultBody| {
            let ended = body.ended.as_ref().map(|ended| format!(", over: {ended}")).unwrap_or_default();
            format!("{} {} {}{ended}", body.dimension, body.code, body.class)
        };
        bodies.iter().map(line).collect()
    }
}

#[test]
fn a_fault_of_the_work_is_told_once_however_often_it_is_seen() {
    let mut story = story();
    assert!(story.sees(31) && !story.sees(31));
    assert_eq!(story.tells(), ["xid 31 job"]);
    assert_eq!(story.reads(1).tells(), [""; 0]);
    story.reads(10);
    assert!(story.sees(31), "another one");
}

#[test]
fn an_unknown_code_takes_the_chip_out_until_it_was_seen_clean_often_enough() {
    let mut story = story();
    story.sees(4242);
    assert_eq!(story.reads(2).tells(), ["xid 4242 unknown"]);
    assert!(!story.sees(4242));
    assert_eq!(story.reads(2).tells(), ["xid 4242 unknown"], "seen again, so counted anew");
    story.chip = story.chip.clone().unreadable();
    story.reads(5);
    story.chip.chip.health = HealthBody::Healthy;
    assert_eq!(story.reads(2).tells(), ["xid 4242 unknown"], "unreadable is not clean");
    assert_eq!(story.reads(1).tells(), ["xid 4242 unknown, over: 3 clean readings in a row over 4 s"]);
    assert_eq!(story.tells(), [""; 0]);
}

#[test]
fn a_chip_to_be_reset_is_clean_only_after_a_reset() {
    let mut story = story();
    story.reads(1).sees(48);
    story.chip.reading.ecc_uncorrected = Some(2);
    assert_eq!(story.reads(9).tells(), ["xid 48 reset", "ecc 0 job"]);
    story.chip.reading.ecc_uncorrected = Some(0);
    story.reads(3);
    assert_eq!(story.tells(), ["xid 48 reset, over: after a reset, 3 clean readings in a row over 4 s"]);
}

#[test]
fn a_fault_of_the_node_outlives_the_agent_and_ends_with_another_boot() {
    let mut before = story();
    before.sees(79);
    before.reads(9);
    let mut after = story();
    let kept = before.book.kept();
    after.book = Book::open(XidTable::shipped().expect("valid"), before.book.rules.clone(), "boot-1", kept.clone());
    assert_eq!(after.reads(9).tells(), ["xid 79 node"], "only the agent was restarted");
    after.book = Book::open(XidTable::shipped().expect("valid"), before.book.rules.clone(), "boot-2", kept);
    let over = "xid 79 node, over: after a restart of the node, 3 clean readings in a row over 4 s";
    assert_eq!(after.reads(3).tells(), [over]);
}

#[test]
fn what_the_driver_asks_for_counts_while_it_asks() {
    let mut story = story();
    story.chip.signs.recovery = Some(1);
    assert_eq!(story.reads(9).tells(), ["recovery 1 reset"]);
    story.chip.signs.recovery = Some(0);
    assert_eq!(story.reads(3).tells(), ["recovery 1 reset, over: after a reset, 3 clean readings in a row over 4 s"]);
}

#[test]
fn a_lost_chip_and_worn_out_memory_are_faults_without_any_xid() {
    let mut story = story();
    story.chip.signs = Signs { lost: true, remap_failed: true, ..Signs::default() };
    assert_eq!(story.reads(1).tells(), ["row_remap 2 human", "lost 0 reset"]);
    story.chip.signs = Signs::default();
    let over = "lost 0 reset, over: after a reset, 3 clean readings in a row over 4 s";
    assert_eq!(story.reads(9).tells(), ["row_remap 2 human", over], "a human's look is no reading");
}

#[test]
fn the_kernels_word_on_the_recovery_is_heeded_before_the_table() {
    let mut story = story();
    let seen = Sighting { which: Which::At((0, 0x17, 0)), xid: 154, wanted: Some(2), detail: String::new() };
    story.book.see(&seen, &reading_at(story.begun, [story.chip.clone()]), story.now());
    assert_eq!(story.tells(), ["xid 154 node"]);
}

#[test]
fn an_xid_of_a_chip_that_is_not_here_is_nobodys() {
    let mut story = story();
    let seen = Sighting { which: Which::At((0, 0x18, 0)), xid: 79, wanted: None, detail: String::new() };
    assert!(!story.book.see(&seen, &reading_at(story.begun, [story.chip.clone()]), story.now()));
    assert_eq!(story.tells(), [""; 0]);
}
