//! A daemon: takes the lead, gathers commands, decides, commits, and only then answers. The allocator is the production one;
//! around it is what `rounds/`, `leading.rs` and the routes of agents do in production, one step at a time.

use super::database::{Database, Leadership, Refused};
use super::letter::{Body, Letter, Place};
use super::orders;
use super::rules::Rules;
use super::step::Dice;
use chiptide_allocator::{Cluster, Command, Round, Seen, Snapshot, check, decide, report};
use chiptide_api::node::{RegisterView, ReportBody, ReportView};
use chiptide_api::work::WorkReport;
use chiptide_model::{ChipId, Event, JobId, LeaseId, Millis, NodeFacts, NodeId, Outcome, Policy, SessionId, Timestamp};
use std::collections::BTreeMap;
use uuid::Uuid;

const SILENT_AFTER: u64 = 10_000;
const POLL_HELD: u64 = 30_000;

/// What is sent to whom once its round is committed.
#[derive(Clone, Debug)]
struct Reply {
    to: Place,
    call: u64,
    then: Then,
    refused: bool,
}

#[derive(Clone, Debug)]
enum Then {
    Nothing,
    Registered(NodeId, RegisterView),
    Reported { node: NodeId, seen: Option<String> },
    Accepted(JobId),
    Over(JobId),
}

/// A round on its way into Postgres, and back.
#[derive(Clone, Debug)]
struct Closed {
    first: u64,
    events: Vec<(Timestamp, Event)>,
    replies: Vec<Reply>,
    landed: bool,
}

#[derive(Clone, Debug)]
struct Latest {
    session: Uuid,
    seq: u64,
    heard: u64,
    work: Vec<WorkReport>,
}

#[derive(Clone, Debug)]
struct Held {
    to: Place,
    call: u64,
    node: NodeId,
    session: Uuid,
    after: Option<String>,
    since: u64,
}

/// What a leader has in memory.
#[derive(Clone, Debug)]
struct Lead {
    who: Leadership,
    timeline: u64,
    committed: Cluster,
    draft: Cluster,
    inbox: Vec<(Command, Reply)>,
    events: Vec<(Timestamp, Event)>,
    replies: Vec<Reply>,
    closed: Option<Closed>,
    /// Memory must be read anew before anything else.
    broken: bool,
    telemetry: BTreeMap<NodeId, Latest>,
    polls: Vec<Held>,
    rounds: u64,
}

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
        match self.lead.as_ref().map(|lead| lead.who) {
            Some(who) => {
                if office.database.renew(who, office.now) == Err(Refused::Deposed) {
                    self.lead = None;
                }
            }
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

impl Reply {
    fn is_about(&self, id: JobId) -> bool {
        matches!(self.then, Then::Accepted(job) if job == id)
    }
}

impl Lead {
    fn decide(&mut self, now: Timestamp, office: &mut Office<'_>) {
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

    fn close(&mut self) {
        let events = std::mem::take(&mut self.events);
        let first = self.draft.seq + 1 - events.len() as u64;
        let landed = events.is_empty();
        self.closed = Some(Closed { first, events, replies: std::mem::take(&mut self.replies), landed });
    }

    /// A commit that failed, or of which nobody knows: everything decided goes, memory is read anew.
    fn drop_round(&mut self, office: &mut Office<'_>) {
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

    fn reload(&mut self, office: &mut Office<'_>) {
        if office.database.is_away(office.now) {
            return;
        }
        let Some(cluster) = load(office) else { return };
        self.timeline = office.database.timeline;
        self.inbox.extend(office.database.replaced().map(|command| (command, nobody())));
        (self.draft, self.committed, self.broken) = (cluster.clone(), cluster, false);
    }

    fn take_report(
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
    fn free_by_time(&mut self, now: u64) {
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

fn load(office: &mut Office<'_>) -> Option<Cluster> {
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

fn reported(cluster: &Cluster, node: &NodeId, seen: Option<&String>, accepted: bool, now: Timestamp) -> Option<Body> {
    let node = cluster.node(node)?;
    let news = seen.is_none_or(|seen| *seen != orders::revision(cluster, node));
    Some(Body::Reported(Box::new(ReportView {
        accepted,
        renewed: accepted,
        orders: news.then(|| orders::of(cluster, node, now)),
    })))
}

fn nobody() -> Reply {
    Reply { to: Place::Clients, call: 0, then: Then::Nothing, refused: false }
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
