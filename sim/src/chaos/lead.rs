//! What a leader has in memory, and what becomes of it: rounds decided, closed, dropped, memory read anew.

use super::daemon::Office;
use super::database::Leadership;
use super::letter::{Body, Place};
use super::orders;
use super::step::Dice;
use chiptide_allocator::{Cluster, Command, Round, Snapshot, check, decide, report};
use chiptide_api::node::{RegisterView, ReportBody, ReportView};
use chiptide_api::work::WorkReport;
use chiptide_model::{Event, JobId, LeaseId, NodeId, Timestamp};
use std::collections::BTreeMap;
use uuid::Uuid;

/// What is sent to whom once its round is committed.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) to: Place,
    pub(super) call: u64,
    pub(super) then: Then,
    pub(super) refused: bool,
}

#[derive(Clone, Debug)]
pub(super) enum Then {
    Nothing,
    Registered(NodeId, RegisterView),
    Reported { node: NodeId, seen: Option<String> },
    Accepted(JobId),
    Over(JobId),
}

/// A round on its way into Postgres, and back.
#[derive(Clone, Debug)]
pub(super) struct Closed {
    pub(super) first: u64,
    pub(super) events: Vec<(Timestamp, Event)>,
    pub(super) replies: Vec<Reply>,
    pub(super) landed: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Latest {
    pub(super) session: Uuid,
    pub(super) seq: u64,
    pub(super) heard: u64,
    pub(super) work: Vec<WorkReport>,
}

#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) to: Place,
    pub(super) call: u64,
    pub(super) node: NodeId,
    pub(super) session: Uuid,
    pub(super) after: Option<String>,
    pub(super) since: u64,
}

/// What a leader has in memory.
#[derive(Clone, Debug)]
pub(super) struct Lead {
    pub(super) who: Leadership,
    pub(super) timeline: u64,
    pub(super) committed: Cluster,
    pub(super) draft: Cluster,
    pub(super) inbox: Vec<(Command, Reply)>,
    pub(super) events: Vec<(Timestamp, Event)>,
    pub(super) replies: Vec<Reply>,
    pub(super) closed: Option<Closed>,
    /// Memory must be read anew before anything else.
    pub(super) broken: bool,
    pub(super) telemetry: BTreeMap<NodeId, Latest>,
    pub(super) polls: Vec<Held>,
    pub(super) rounds: u64,
    /// When the lead was last renewed, and whether a renewal is on its way.
    pub(super) renewed: u64,
    pub(super) renewing: bool,
}

impl Reply {
    pub(super) fn is_about(&self, id: JobId) -> bool {
        matches!(self.then, Then::Accepted(job) if job == id)
    }
}

impl Lead {
    pub(super) fn decide(&mut self, now: Timestamp, office: &mut Office<'_>) {
        self.rounds += 1;
        let (commands, mut replies): (Vec<_>, Vec<_>) = std::mem::take(&mut self.inbox).into_iter().unzip();
        let now = now.max(self.draft.at);
        let mut dice = Dice::new(self.who.instance << 32 ^ self.who.epoch << 48 ^ self.rounds);
        let seed = u128::from(dice.next()) << 64 | u128::from(dice.next());
        let decision = decide(&mut self.draft, commands, Round { now, seed });
        let contradictions = check(&self.draft).into_iter().map(|found| found.to_string());
        let unfounded = decision.unfounded.map(|found| found.to_string());
        office
            .found
            .extend(contradictions.chain(unfounded).map(|found| format!("the allocator contradicts itself: {found}")));
        self.draft.take_touched();
        for (reply, answer) in replies.iter_mut().zip(&decision.answers) {
            reply.refused = answer.is_err();
        }
        self.replies.extend(replies.into_iter().filter(|reply| !matches!(reply.then, Then::Nothing)));
        self.events.extend(decision.events.into_iter().map(|event| (now, event)));
    }

    pub(super) fn close(&mut self) {
        let events = std::mem::take(&mut self.events);
        let first = self.draft.seq + 1 - events.len() as u64;
        let landed = events.is_empty();
        self.closed = Some(Closed { first, events, replies: std::mem::take(&mut self.replies), landed });
    }

    /// A commit that failed, or of which nobody knows: everything decided goes, memory is read anew.
    pub(super) fn drop_round(&mut self, office: &mut Office<'_>) {
        (self.closed, self.broken) = (None, true);
        self.events.clear();
        self.replies.clear();
        self.inbox.clear();
        if office.rules.no_reload && self.timeline == office.database.timeline {
            (self.draft, self.broken) = (self.committed.clone(), false);
            return;
        }
        self.reload(office);
    }

    pub(super) fn reload(&mut self, office: &mut Office<'_>) {
        if office.database.is_away(office.now) {
            return;
        }
        let Some(mut cluster) = load(office) else { return };
        cluster.resume(Timestamp(office.now as i64));
        self.timeline = office.database.timeline;
        self.inbox.extend(office.database.replaced().map(|command| (command, nobody())));
        (self.draft, self.committed, self.broken) = (cluster.clone(), cluster, false);
    }

    pub(super) fn take_report(
        &mut self,
        node: &NodeId,
        body: &ReportBody,
        reply: impl Fn(Then) -> Reply,
        now: Timestamp,
        office: &Office<'_>,
    ) -> Option<Body> {
        let known = self.committed.node(node);
        if known.is_none_or(|known| known.session.0 != body.session || known.boot_id != body.boot_id) {
            return Some(Body::Stranger);
        }
        let last = self.telemetry.get(node);
        let accepted = last.is_none_or(|last| last.session != body.session || last.seq < body.seq);
        if !accepted {
            return reported(&self.committed, node, body.orders_seen.as_ref(), false, now);
        }
        let latest = Latest { session: body.session, seq: body.seq, heard: office.now, work: body.work.clone() };
        self.telemetry.insert(node.clone(), latest);
        for work in &body.work {
            let said = |node: &NodeId, rank: u32| {
                let said = &self.telemetry.get(node)?.work;
                Some(said.iter().find(|told| told.lease == work.lease && told.rank == rank)?.work.clone())
            };
            let ended = orders::work_ended(&self.committed, LeaseId(work.lease), said, now);
            self.inbox.extend(ended.map(|command| (command, nobody())));
        }
        let seen = body.orders_seen.clone();
        let parsed = orders::report(&self.committed, node, body, office.rules);
        match report::news(&self.committed, parsed) {
            Some(news) => {
                self.inbox.push((Command::Report(news), reply(Then::Reported { node: node.clone(), seen })));
                None
            }
            None => reported(&self.committed, node, seen.as_ref(), true, now),
        }
    }

    /// The rule that a chip becomes free on proof only, broken: made-up proofs for what is overdue.
    pub(super) fn free_by_time(&mut self, now: u64) {
        for node in &self.committed.fleet.nodes {
            let held = node.chips.iter().map(|&ix| &self.committed.fleet.chips[ix]);
            let overdue = held.flat_map(|chip| chip.holds.iter().map(|hold| (chip.facts.id.clone(), hold)));
            let overdue = overdue.filter(|(_, hold)| hold.vacate_by.is_some_and(|by| by.0 as u64 <= now + 10_000));
            let vacant = overdue.map(|(chip, hold)| (chip, hold.lease, hold.epoch)).collect();
            let made_up = chiptide_allocator::Report {
                node: node.id.clone(),
                session: node.session,
                health: Vec::new(),
                confirmed: Vec::new(),
                vacant,
                refused: Vec::new(),
                faults: Vec::new(),
                fenced: Vec::new(),
                ladders: Vec::new(),
            };
            if !made_up.vacant.is_empty() {
                self.inbox.push((Command::Report(made_up), nobody()));
            }
        }
    }
}

pub(super) fn load(office: &mut Office<'_>) -> Option<Cluster> {
    match office.database.load() {
        Ok(cluster) => {
            if Snapshot::of(&cluster) != Snapshot::of(office.database.tables()) {
                office.found.push("I8: what is read back is not the fold of the log".into());
            }
            Some(cluster)
        }
        Err(why) => {
            office.found.push(format!("I8: the cluster cannot be read back: {why}"));
            None
        }
    }
}

pub(super) fn reported(
    cluster: &Cluster,
    node: &NodeId,
    seen: Option<&String>,
    accepted: bool,
    now: Timestamp,
) -> Option<Body> {
    let node = cluster.node(node)?;
    let news = seen.is_none_or(|seen| *seen != orders::revision(cluster, node));
    Some(Body::Reported(Box::new(ReportView {
        accepted,
        renewed: accepted,
        orders: news.then(|| orders::of(cluster, node, now)),
    })))
}

pub(super) fn nobody() -> Reply {
    Reply { to: Place::Clients, call: 0, then: Then::Nothing, refused: false }
}
