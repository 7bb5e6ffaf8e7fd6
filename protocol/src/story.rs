//! Steps told in words.

use crate::ledger::{Change, Fact};
use crate::world::Action;

/// One step as a sentence.
pub fn tell(action: Action) -> String {
    match action {
        Action::Lead(d) => format!("daemon {d} takes the lead"),
        Action::Die(d) => format!("daemon {d} dies"),
        Action::Reload(d) => format!("daemon {d} reads the tables anew"),
        Action::Commit(d, change) => format!("daemon {d} commits: {}", decided(change)),
        Action::Leak(d, change) => format!("daemon {d} sends without a commit: {}", decided(change)),
        Action::Answer(d, n) => format!("daemon {d} answers node {n} with its orders"),
        Action::Deliver(n) => format!("the answer reaches node {n}"),
        Action::DeliverLate(n) => format!("an earlier answer reaches node {n}"),
        Action::Start(n) => format!("node {n} begins to start its lease's work"),
        Action::Spawn(n) => format!("the work on node {n} starts"),
        Action::Touch(n) => format!("the work on node {n} uses the chip"),
        Action::End(n) => format!("node {n} ends what is not wanted"),
        Action::Exit(n) => format!("the work on node {n} ends by itself"),
        Action::Crash(n) => format!("the agent of node {n} dies"),
        Action::Wipe(n) => format!("the agent of node {n} dies and its disk is lost"),
        Action::Reboot(n) => format!("node {n} reboots"),
        Action::Register(n) => format!("the agent of node {n} registers"),
        Action::LateRegistration(n) => format!("an old registration of node {n} arrives once more"),
        Action::Failover => "Postgres fails over and loses its last commit".into(),
        Action::Stop(n) => format!("the agent of node {n} is stopped just before a start"),
        Action::GoOn(n) => format!("the stopped agent of node {n} goes on and starts the work"),
    }
}

fn decided(change: Change) -> String {
    let chips = |chips: [bool; 2]| match chips {
        [true, true] => "both chips",
        [true, false] => "chip 0",
        [false, true] => "chip 1",
        [false, false] => "no chip",
    };
    let job = |job: u8| if job == 1 { "the gang" } else { "job 0" };
    match change {
        Change::Claim(j, c) => format!("{} claims {}", job(j), chips(c)),
        Change::Grant(j, c) => format!("{} gets {}", job(j), chips(c)),
        Change::DropClaim(j) => format!("the claim of {} is given up", job(j)),
        Change::Requeue(j) => format!("the lease of {} ends, it waits again", job(j)),
        Change::Finish(j) => format!("{} is done", job(j)),
        Change::Register(n, ..) => format!("node {n} registers"),
        Change::Heard(n, _) => format!("node {n} is heard"),
        Change::Silent(n) => format!("node {n} is silent"),
        Change::Told(n, Fact::Confirmed(_)) => format!("node {n} has said that it carries the lease"),
        Change::Told(n, Fact::Vacant(..)) => format!("node {n} has proven its chip vacant"),
        Change::Told(n, Fact::Refused(_)) => format!("node {n} has refused its lease, which ends"),
        Change::Forget(n) => format!("chip {n} took too long and counts as free"),
    }
}
