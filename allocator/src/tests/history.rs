//! Random histories: whatever comes, every invariant holds after every round, and memory is the fold of the log.

use super::world::{HIGH, LOW, MID, World, chips as chips_quota, job, node_id, world};
use crate::{Cluster, Command, RefusedGrant, Snapshot, check};
use chiptide_model::{
    Backfill, CalendarReservation, Cause, ChipId, Consolidation, Dimension, Event, Fault, FaultClass, FaultEnd,
    FaultKey, Health, JobId, LeaseId, Millis, NodeId, Outcome, PreemptionBudget, Same, SameLevel, Timestamp,
};
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Step {
    Submit {
        chips: u16,
        share: u16,
        replicas: u32,
        priority: i32,
        grace_s: u64,
        class: u8,
        same: Option<bool>,
        ttl: bool,
        lasts_s: Option<u64>,
        elastic: bool,
        protected: bool,
        fenced: bool,
    },
    Checkpoint {
        pick: usize,
    },
    End {
        pick: usize,
        cancel: bool,
    },
    Release {
        pick: usize,
        requeue: bool,
    },
    Report {
        node: usize,
        keep: usize,
    },
    Sick {
        node: usize,
        chip: u16,
        well: bool,
    },
    Fault {
        node: usize,
        chip: u16,
        class: FaultClass,
        since: i64,
        ended: bool,
    },
    Admin {
        node: usize,
        chip: u16,
        release: bool,
    },
    Silent {
        node: usize,
    },
    Reboot {
        node: usize,
    },
    Wait {
        seconds: u64,
    },
    NewLeader,
    DatabaseReplaced,
    DeclareOff {
        node: usize,
    },
    Refuses {
        node: usize,
        ahead: u64,
    },
    Policy {
        reservations_max: u32,
        window: Option<(u64, u64, u32, bool)>,
        consolidation: Option<u64>,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let priority = prop::sample::select(vec![LOW, MID, HIGH]);
    let nearness = prop::option::of(any::<bool>());
    let lasts_s = prop::option::weighted(0.7, 1..200u64);
    let submit = (0..4u16, 1..1000u16, 1..4u32, priority, 0..40u64, 0..3u8, nearness, any::<[bool; 4]>(), lasts_s);
    let window = prop::option::of((0..300u64, 1..300u64, 1..6u32, any::<bool>()));
    let policy = (0..4u32, window, prop::option::of(0..3_000u64));
    let step = prop_oneof![
        6 => submit.prop_map(|(chips, share, replicas, priority, grace_s, class, same, [ttl, elastic, protected, fenced], lasts_s)| {
            Step::Submit { chips, share, replicas, priority, grace_s, class, same, ttl, lasts_s, elastic, protected, fenced }
        }),
        1 => policy.prop_map(|(reservations_max, window, consolidation)| {
            Step::Policy { reservations_max, window, consolidation }
        }),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(pick, cancel)| Step::End { pick, cancel }),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(pick, requeue)| Step::Release { pick, requeue }),
        5 => (0..3usize, 0..9usize).prop_map(|(node, keep)| Step::Report { node, keep }),
        1 => (0..3usize, 0..4u16, any::<bool>()).prop_map(|(node, chip, well)| Step::Sick { node, chip, well }),
        2 => fault_strategy(),
        1 => (0..3usize, 0..4u16, any::<bool>()).prop_map(|(node, chip, release)| Step::Admin { node, chip, release }),
        1 => any::<usize>().prop_map(|pick| Step::Checkpoint { pick }),
        1 => (0..3usize).prop_map(|node| Step::Silent { node }),
        1 => (0..3usize).prop_map(|node| Step::Reboot { node }),
        2 => (0..50u64).prop_map(|seconds| Step::Wait { seconds }),
        1 => Just(Step::NewLeader),
        1 => Just(Step::DatabaseReplaced),
        1 => (0..3usize).prop_map(|node| Step::DeclareOff { node }),
        1 => (0..3usize, 0..3u64).prop_map(|(node, ahead)| Step::Refuses { node, ahead }),
    ];
    prop::collection::vec(step, 1..60)
}

fn fault_strategy() -> impl Strategy<Value = Step> {
    use FaultClass::*;
    let class = prop::sample::select(vec![Record, Job, ResetAtIdle, Reset, Node, Human, Foreign]);
    (0..3usize, 0..4u16, class, 0..3i64, any::<bool>()).prop_map(|(node, chip, class, since, ended)| Step::Fault {
        node,
        chip,
        class,
        since,
        ended,
    })
}

fn play(world: &mut World, number: usize, step: Step) {
    match step {
        Step::Submit {
            chips,
            share,
            replicas,
            priority,
            grace_s,
            class,
            same,
            ttl,
            lasts_s,
            elastic,
            protected,
            fenced,
        } => {
            let ask = job(&format!("job-{number}")).queue(QUEUES[number % 3]).replicas(replicas).priority(priority);
            let ask = if chips == 0 { ask.share(share) } else { ask.chips(chips) };
            let ask = match class {
                0 => ask,
                1 => ask.classes(&["nvidia-h20"]),
                _ => ask.classes(&["ascend-910b", "nvidia-h20"]),
            };
            let ask = if fenced { ask.fenced("5s") } else { ask };
            let ask = ask.with(|spec| {
                spec.grace = Millis::from_secs(grace_s);
                spec.cpu_milli = u64::from(share) * 20;
                spec.max_duration = lasts_s.map(Millis::from_secs);
                spec.same = same.map(|required| Same { level: SameLevel::Node, required });
                spec.lease_ttl = ttl.then_some(Millis::from_secs(30));
                spec.replicas_min = elastic.then_some(1);
                spec.min_runtime = protected.then_some(Millis::from_secs(20));
                let cool_down = Some(Millis::from_secs(60));
                spec.preemption_budget = protected.then_some(PreemptionBudget { per_day: Some(3), cool_down });
            });
            world.submit(ask).expect("accepted");
        }
        Step::End { pick, cancel } => {
            let live: Vec<JobId> = world.draft.jobs().map(|job| job.id).collect();
            if let Some(&id) = live.get(pick % live.len().max(1)) {
                world.round(vec![if cancel { Command::Cancel(id) } else { Command::Done(id, Outcome::Succeeded) }]);
            }
        }
        Step::Release { pick, requeue } => {
            let live: Vec<LeaseId> =
                world.draft.leases().filter(|lease| lease.is_live()).map(|lease| lease.id).collect();
            if let Some(&lease) = live.get(pick % live.len().max(1)) {
                world.round(vec![Command::Release { lease, requeue }]);
            }
        }
        Step::Checkpoint { pick } => {
            let live: Vec<LeaseId> =
                world.draft.leases().filter(|lease| lease.is_live()).map(|lease| lease.id).collect();
            if let Some(&lease) = live.get(pick % live.len().max(1)) {
                world.round(vec![Command::Checkpoint { lease, step: None, leave: false }]);
            }
        }
        Step::Report { node, keep } => {
            let mut report = world.full_report(&node_id(NODES[node].0));
            report.vacant.truncate(keep);
            world.round(vec![Command::Report(report.clone()), Command::Report(report)]);
        }
        Step::Sick { node, chip, well } => {
            let mut report = world.full_report(&node_id(NODES[node].0));
            let health = if well { Health::Healthy } else { Health::Unhealthy { detail: "lost".into() } };
            report.health = vec![(ChipId::new(&format!("{}-{chip}", NODES[node].0)).expect("a chip name"), health)];
            world.round(vec![Command::Report(report)]);
        }
        Step::Fault { node, chip, class, since, ended } => {
            let mut report = world.full_report(&node_id(NODES[node].0));
            let key = FaultKey { dimension: Dimension::Xid, code: class as u32, since: Timestamp(since) };
            let ended = ended.then(|| FaultEnd::Evidence { detail: "clean".into() });
            let chip = ChipId::new(&format!("{}-{chip}", NODES[node].0)).expect("a chip name");
            report.faults = vec![(chip, Fault { key, class, detail: String::new(), ended })];
            world.round(vec![Command::Report(report)]);
        }
        Step::Admin { node, chip, release } => {
            let chip = ChipId::new(&format!("{}-{chip}", NODES[node].0)).expect("a chip name");
            let (who, reason) = (String::from("ann"), String::from("a look"));
            world.round(vec![match release {
                true => Command::ReleaseChip { chip, who, reason },
                false => Command::Quarantine { chip, who, reason },
            }]);
        }
        Step::Silent { node } => drop(world.round(vec![Command::Silent(node_id(NODES[node].0))])),
        Step::Reboot { node } => {
            let (name, kind, chips) = NODES[node];
            drop(world.register(name, kind, chips, &format!("boot-{number}")));
        }
        Step::Wait { seconds } => world.after(&format!("{seconds}s")),
        Step::Policy { reservations_max, window, consolidation } => {
            let mut policy = world.draft.policy.clone();
            policy.backfill = Backfill { reservations_max, calendar_lead: Millis::from_secs(100), ..policy.backfill };
            policy.calendar = window
                .map(|(from_s, span_s, chips, grouped)| CalendarReservation {
                    name: "window".into(),
                    from: world.now + Millis::from_secs(from_s),
                    to: world.now + Millis::from_secs(from_s + span_s),
                    queue: "default".into(),
                    device_class: None,
                    chips,
                    per_node: grouped.then_some(2),
                })
                .into_iter()
                .collect();
            policy.consolidation = consolidation
                .map(|lost| Consolidation { lost_chip_ms_max: lost * 1000, cool_down: Millis::from_secs(30) });
            // Guarantees that the fleet may not be able to honour, and a limit that may lie below what is held.
            policy.queues.entry(QUEUES[1].into()).or_default().guaranteed = chips_quota(reservations_max * 2);
            policy.queues.entry(QUEUES[2].into()).or_default().limit = chips_quota(reservations_max + 1);
            world.round(vec![Command::ApplyPolicy(policy)]);
        }
        Step::DatabaseReplaced => {
            world.round(vec![Command::DatabaseReplaced { detail: "restored".into() }]);
        }
        Step::DeclareOff { node } => {
            let (by, reason) = ("ops".into(), "burnt".into());
            world.round(vec![Command::DeclareOff { node: node_id(NODES[node].0), by, reason }]);
        }
        Step::Refuses { node, ahead } => {
            let mut report = world.full_report(&node_id(NODES[node].0));
            let carried = report.confirmed.pop().and_then(|lease| world.draft.lease(lease));
            let hold = carried.and_then(|lease| Some((lease.id, lease.placements[0].holds.first()?.clone())));
            report.refused.extend(hold.map(|(lease, hold)| RefusedGrant {
                lease,
                chip: hold.chip,
                epoch: hold.epoch,
                seen: hold.epoch + ahead,
                seen_lease: Some(LeaseId(uuid::Uuid::from_u128(number as u128 + 0xF000))),
            }));
            report.fenced.extend(world.draft.leases().next().map(|lease| lease.id));
            world.round(vec![Command::Report(report)]);
        }
        Step::NewLeader => {
            let epoch = world.draft.leader_epoch + 1;
            world.round(vec![Command::TakeOver { epoch }]);
        }
    }
}

const NODES: [(&str, &str, u16); 3] = [("n1", "nvidia-h20", 4), ("n2", "nvidia-h20", 2), ("n3", "ascend-910b", 3)];

const QUEUES: [&str; 3] = ["default", "owed", "limited"];

/// Nobody is evicted for a job that does not get the chips: a promise that names the victim comes in the same round.
fn nobody_is_evicted_in_vain(log: &[(Timestamp, Event)]) {
    for (at, (when, event)) in log.iter().enumerate() {
        let Event::LeaseRevoked { lease, cause, .. } = event else { continue };
        let Some(for_job) = cause.for_job() else { continue };
        let promised = log[at..].iter().take_while(|(then, _)| then == when).any(|(_, event)| match event {
            Event::ClaimMade { job, victims, .. } => *job == for_job && victims.contains(lease),
            _ => false,
        });
        assert!(promised, "lease {lease} was taken for job {for_job}, which was promised nothing");
    }
}

/// An auditor of its own: reads only the log.
fn audit(log: &[(Timestamp, Event)]) {
    let mut held: BTreeMap<ChipId, Vec<(LeaseId, u64)>> = BTreeMap::new();
    let mut epochs: BTreeMap<ChipId, u64> = BTreeMap::new();
    for (_, event) in log {
        match event {
            Event::LeaseGranted { lease, placements, .. } => {
                for hold in placements.iter().flat_map(|placement| &placement.holds) {
                    let slots = hold.slots.iter().map(|slots| u64::from(slots.count())).sum();
                    let holders = held.entry(hold.chip.clone()).or_default();
                    holders.push((*lease, slots));
                    assert!(
                        holders.iter().map(|(_, slots)| slots).sum::<u64>() <= 1000,
                        "chip {} over-held",
                        hold.chip
                    );
                    assert!(epochs.insert(hold.chip.clone(), hold.epoch) < Some(hold.epoch), "epoch went back");
                }
            }
            Event::ChipVacated { chip, lease, .. } => {
                held.entry(chip.clone()).or_default().retain(|(id, _)| id != lease)
            }
            _ => {}
        }
    }
}

/// A lease that is called lost has a node that was not heard, nor renewed by a leader before, for the whole wait.
fn nothing_is_lost_early(log: &[(Timestamp, Event)], wait: Millis) {
    let mut unheard: BTreeMap<NodeId, Option<Timestamp>> = BTreeMap::new();
    for (at, event) in log {
        match event {
            Event::NodeRegistered { node, .. } | Event::NodeHeard { node } => drop(unheard.insert(node.clone(), None)),
            Event::NodeSilent { node } => drop(unheard.insert(node.clone(), Some(*at))),
            Event::LeaderTookOver { .. } => unheard.values_mut().for_each(|since| *since = Some(*at)),
            Event::DatabaseReplaced { .. } => unheard.values_mut().for_each(|since| *since = since.or(Some(*at))),
            Event::LeaseEnded { lease, cause: Cause::NodeLost { node }, .. } => {
                let since = unheard.get(node).copied().flatten();
                assert!(since.is_some_and(|since| at.since(since) >= wait), "lease {lease} was called lost early");
            }
            _ => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn every_history_keeps_every_invariant(steps in steps()) {
        let mut world = world();
        for (name, kind, chips) in NODES {
            world = world.node_of(name, kind, chips);
        }
        for (number, step) in steps.into_iter().enumerate() {
            play(&mut world, number, step);
        }
        audit(&world.log);
        nobody_is_evicted_in_vain(&world.log);
        // 20 s · 1.0005/0.9995 and a tick.
        nothing_is_lost_early(&world.log, Millis(21_021));
        let mut replayed = Cluster::default();
        for (at, event) in &world.log {
            replayed.apply(*at, event).expect("the log replays");
        }
        prop_assert!(replayed == world.committed);
        let mut restored = Snapshot::of(&world.committed).restore().expect("the rows fit");
        prop_assert_eq!(check(&restored), Vec::new());
        prop_assert_eq!(Snapshot::of(&restored), Snapshot::of(&world.committed));
        let mut counts = restored.fleet.nodes.iter().zip(&world.committed.fleet.nodes);
        let told_apart = counts.all(|(now, before)| now.orders_revision > before.orders_revision);
        prop_assert!(told_apart, "a leader that reads its cluster anew must not count its orders from the start");
        // Rows do not tell the time: what is ripe is known from the next round on.
        restored.ripen(world.now);
        // Nor since when nodes can answer: bounds on what they have to say run anew.
        let mut resumed = world.draft.clone();
        restored.resume(world.now);
        resumed.resume(world.now);
        prop_assert_eq!(restored.next_due(), resumed.next_due());
        prop_assert_eq!(&restored.preemptible, &world.draft.preemptible);
        prop_assert!(restored.growth == world.draft.growth);
    }
}
