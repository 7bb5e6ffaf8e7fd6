//! A daemon: takes the lead, gathers commands, decides, commits, and only then answers. The allocator is the production one;
//! around it is what `rounds/`, `leading.rs` and the routes of agents do in production, one step at a time.

use super::database::{Database, LEAD_TTL, Refused};
use super::lead::{Held, Latest, Lead, Reply, Then, load, nobody, reported};
use super::letter::{Body, Letter, Place};
use super::orders;
use super::rules::Rules;
use super::step::Dice;
use chiptide_allocator::{Command, Seen, Snapshot};
use chiptide_api::node::RegisterView;
use chiptide_model::{ChipId, Event, LeaseId, Millis, NodeFacts, NodeId, Outcome, Policy, SessionId, Timestamp};
use std::collections::BTreeMap;
use uuid::Uuid;

/// From when on a node is silent, in milliseconds.
pub(super) const SILENT_AFTER: u64 = 10_000;
const POLL_HELD: u64 = 30_000;

#[derive(Clone, Debug)]
pub(super) struct Daemon {
    at: usize,
    pub(super) up: bool,
    pub(super) paused_until: u64,
    instance: u64,
    /// How far its wall clock is ahead.
    ahead: u64,
    lead: Option<Box<Lead>>,
    /// The answer to the next commit is lost; whether it lands.
    pub(super) lose_commit: Option<bool>,
}

/// What a daemon does its work with.
pub(super) struct Office<'a> {
    pub(super) database: &'a mut Database,
    pub(super) now: u64,
    pub(super) rules: Rules,
    pub(super) instances: &'a mut u64,
    pub(super) out: &'a mut Vec<Letter>,
    /// What must never be.
    pub(super) found: &'a mut Vec<String>,
}

impl Daemon {
    pub(super) fn new(at: usize, ahead: u64) -> Daemon {
        Daemon { at, up: true, paused_until: 0, instance: 0, ahead, lead: None, lose_commit: None }
    }

    /// The process dies: memory is gone.
    pub(super) fn kill(&mut self) {
        (self.up, self.lead, self.lose_commit) = (false, None, None);
    }

    pub(super) fn runs(&self, now: u64) -> bool {
        self.up && now >= self.paused_until
    }

    fn clock(&self, now: u64) -> Timestamp {
        Timestamp((now + self.ahead) as i64)
    }

    /// What time alone makes a daemon do: renew or take the lead, notice silence, let polls go.
    pub(super) fn tick(&mut self, office: &mut Office<'_>) {
        match self.lead {
            Some(_) => self.renew(office),
            None => self.take_over(office),
        }
        let Some(lead) = &mut self.lead else { return };
        let silent = |id: &NodeId| lead.telemetry.get(id).is_none_or(|last| office.now > last.heard + SILENT_AFTER);
        let known = lead.committed.fleet.nodes.iter().filter(|node| node.unknown_since.is_none());
        let silent: Vec<NodeId> = known.filter(|node| silent(&node.id)).map(|node| node.id.clone()).collect();
        lead.inbox.extend(silent.into_iter().map(|node| (Command::Silent(node), nobody())));
        if office.rules.freed_by_time {
            lead.free_by_time(office.now);
        }
        self.answer_polls(office);
    }

    /// A renewal goes out in one tick and is back in the next: meanwhile rounds go on, also those of a leader that was
    /// deposed in its sleep.
    fn renew(&mut self, office: &mut Office<'_>) {
        let Some(lead) = &mut self.lead else { return };
        if std::mem::take(&mut lead.renewing) {
            match office.database.renew(lead.who, office.now) {
                Ok(()) => lead.renewed = office.now,
                Err(Refused::Deposed) => self.lead = None,
                Err(_) => {}
            }
        } else {
            lead.renewing = office.now >= lead.renewed + LEAD_TTL / 3;
        }
    }

    fn take_over(&mut self, office: &mut Office<'_>) {
        if self.instance == 0 {
            *office.instances += 1;
            self.instance = *office.instances;
        }
        let Some(who) = office.database.take_over(self.instance, office.now) else { return };
        self.instance = 0;
        let Some(cluster) = load(office) else { return };
        let mut commands = vec![(Command::TakeOver { epoch: who.epoch }, nobody())];
        if cluster.seq == 0 {
            commands.push((Command::ApplyPolicy(policy()), nobody()));
        }
        commands.extend(office.database.replaced().map(|command| (command, nobody())));
        self.lead = Some(Box::new(Lead {
            who,
            timeline: office.database.timeline,
            draft: cluster.clone(),
            committed: cluster,
            inbox: commands,
            events: Vec::new(),
            replies: Vec::new(),
            closed: None,
            broken: false,
            telemetry: BTreeMap::new(),
            polls: Vec::new(),
            rounds: 0,
            renewed: office.now,
            renewing: false,
        }));
    }

    /// The next third of a round.
    pub(super) fn serve(&mut self, office: &mut Office<'_>, dice: &mut Dice) {
        let now = self.clock(office.now);
        let Some(lead) = &mut self.lead else { return };
        if lead.broken {
            lead.reload(office);
            return;
        }
        let due = !lead.inbox.is_empty() || lead.draft.next_due().is_some_and(|due| due <= now);
        let under_way = lead.closed.is_some() || !lead.events.is_empty() || !lead.replies.is_empty();
        if due && (!under_way || dice.percent(30)) {
            lead.decide(now, office);
            if office.rules.acts_before_commit {
                let replies = std::mem::take(&mut lead.replies);
                lead.committed = lead.draft.clone();
                self.answer(replies, office);
                self.answer_polls(office);
            } else if office.rules.answers_before_commit {
                let (now, later) = std::mem::take(&mut lead.replies).into_iter().partition(|r| r.to == Place::Clients);
                lead.replies = later;
                self.answer(now, office);
            }
            return;
        }
        match &lead.closed {
            None if under_way => lead.close(),
            None => {}
            Some(closed) if closed.landed => self.on_committed(office),
            Some(_) => self.commit(office),
        }
    }

    fn commit(&mut self, office: &mut Office<'_>) {
        let lost = self.lose_commit.take();
        let Some(lead) = &mut self.lead else { return };
        let Some(closed) = &mut lead.closed else { return };
        let mut write = || {
            let (now, rules) = (office.now, office.rules);
            office.database.commit(lead.who, lead.timeline, closed.first, &closed.events, rules, now)
        };
        match lost {
            Some(lands) => {
                if lands {
                    // Whatever became of it, nobody is told.
                    let _ = write();
                }
                lead.drop_round(office);
            }
            None => match write() {
                Ok(()) => closed.landed = true,
                Err(Refused::Deposed) => self.lead = None,
                Err(Refused::Unreachable) => lead.drop_round(office),
                Err(Refused::Constraint(_)) => lead.drop_round(office),
            },
        }
    }

    fn on_committed(&mut self, office: &mut Office<'_>) {
        let Some(lead) = &mut self.lead else { return };
        let Some(closed) = lead.closed.take() else { return };
        if !office.rules.acts_before_commit {
            for (at, event) in &closed.events {
                if let Err(unfounded) = lead.committed.apply(*at, event) {
                    office.found.push(format!("I8: memory refuses a committed event: {unfounded}"));
                }
            }
            lead.committed.take_touched();
        }
        let same = lead.timeline == office.database.timeline && lead.committed.seq == office.database.log.len() as u64;
        if same && !office.rules.unguarded && Snapshot::of(&lead.committed) != Snapshot::of(office.database.tables()) {
            office.found.push("I8: memory is not the fold of the log".into());
        }
        self.answer(closed.replies, office);
        self.answer_polls(office);
    }

    fn answer(&mut self, replies: Vec<Reply>, office: &mut Office<'_>) {
        let now = self.clock(office.now);
        let Some(lead) = &mut self.lead else { return };
        for reply in replies {
            let body = match reply.then {
                Then::Nothing => continue,
                Then::Registered(..) if reply.refused => Body::Later,
                Then::Registered(node, view) => {
                    let latest = Latest { session: view.session, seq: 0, heard: office.now, work: Vec::new() };
                    lead.telemetry.insert(node, latest);
                    Body::Registered(view)
                }
                Then::Reported { .. } if reply.refused => Body::Stranger,
                Then::Reported { node, seen } => match reported(&lead.committed, &node, seen.as_ref(), true, now) {
                    Some(body) => body,
                    None => continue,
                },
                Then::Accepted(job) => Body::Accepted(job),
                Then::Over(job) => Body::Over(job),
            };
            office.out.push(Letter { from: Place::Daemon(self.at), to: reply.to, call: reply.call, body });
        }
    }

    fn answer_polls(&mut self, office: &mut Office<'_>) {
        let now = self.clock(office.now);
        let Some(lead) = &mut self.lead else { return };
        let (at, cluster) = (self.at, &lead.committed);
        lead.polls.retain(|held| {
            let Some(node) = cluster.node(&held.node) else { return false };
            let same = held.after.as_deref() == Some(orders::revision(cluster, node).as_str());
            if node.session.0 == held.session && same && office.now < held.since + POLL_HELD {
                return true;
            }
            let body = match node.session.0 == held.session {
                true => Body::Orders(Box::new(orders::of(cluster, node, now))),
                false => Body::Stranger,
            };
            office.out.push(Letter { from: Place::Daemon(at), to: held.to, call: held.call, body });
            false
        });
    }

    /// Takes a request.
    pub(super) fn receive(&mut self, letter: Letter, office: &mut Office<'_>, dice: &mut Dice) {
        let (at, now) = (self.at, self.clock(office.now));
        let answer = |body: Body| Letter { from: Place::Daemon(at), to: letter.from, call: letter.call, body };
        let Some(lead) = self.lead.as_mut().filter(|lead| !lead.broken && lead.committed.seq > 0) else {
            office.out.push(answer(Body::Later));
            return;
        };
        let reply = |then: Then| Reply { to: letter.from, call: letter.call, then, refused: false };
        let node = match letter.from {
            Place::Node(node) => NodeId::new(&format!("n{node}")).ok(),
            _ => None,
        };
        match (letter.body.clone(), node) {
            (Body::Register { boot_id, chips, seen }, Some(node)) => {
                let session = Uuid::from_u128(u128::from(dice.next()) << 64 | u128::from(dice.next()));
                let (every, silent) = (Millis(2000), Millis(SILENT_AFTER));
                let view = RegisterView { session, report_every: every, silent_after: silent };
                let then = Then::Registered(node.clone(), view);
                let seen = seen.into_iter().filter_map(|seen| {
                    Some(Seen { chip: ChipId::new(&seen.chip).ok()?, lease: LeaseId(seen.lease), epoch: seen.epoch })
                });
                let (session, seen) = (SessionId(session), seen.collect());
                let command = Command::Register { node, session, boot_id, facts: facts(), chips, seen };
                lead.inbox.push((command, reply(then)));
            }
            (Body::Report(body), Some(node)) => {
                if let Some(body) = lead.take_report(&node, &body, reply, now, office) {
                    office.out.push(answer(body));
                }
            }
            (Body::Poll { session, after }, Some(node)) => {
                let held = Held { to: letter.from, call: letter.call, node, session, after, since: office.now };
                match lead.committed.node(&held.node) {
                    Some(_) => lead.polls.push(held),
                    None => office.out.push(answer(Body::Stranger)),
                }
                self.answer_polls(office);
            }
            (Body::Submit(job), _) => {
                let known = |(_, event): &(Timestamp, Event)| matches!(event, Event::JobSubmitted { job: id, .. } if *id == job.id);
                if office.database.log.iter().any(known) {
                    office.out.push(answer(Body::Accepted(job.id)));
                } else if lead.draft.job(job.id).is_none() && !lead.inbox.iter().any(|(_, r)| r.is_about(job.id)) {
                    let reply = reply(Then::Accepted(job.id));
                    lead.inbox.push((Command::Submit(vec![job]), reply));
                }
            }
            (Body::Done(job), _) => {
                lead.inbox.push((Command::Done(job, Outcome::Succeeded), reply(Then::Over(job))));
            }
            (Body::Cancel(job), _) => lead.inbox.push((Command::Cancel(job), reply(Then::Over(job)))),
            _ => {}
        }
    }
}

fn facts() -> NodeFacts {
    NodeFacts {
        link_domain: None,
        cpu_milli: 128_000,
        memory_mib: 1_048_576,
        rack: None,
        agent_version: "simulated".into(),
        driver_version: None,
        labels: BTreeMap::new(),
    }
}

/// Short bounds, so that a story of minutes meets them.
fn policy() -> Policy {
    let mut policy = Policy::default();
    (policy.bounds.claim, policy.bounds.vacate) = (Millis::from_secs(20), Millis::from_secs(15));
    policy
}
