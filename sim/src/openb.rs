//! The openb trace (`data/openb`): a production fleet and the tasks it was given, as scripted nodes and job bodies.

use crate::scripted_node::NodeShape;
use anyhow::Context;
use chiptide_api::job::{ClassBody, JobBody, KindBody, PriorityBody, SameBody, ShareBody, UnfitBody};
use chiptide_model::{DeviceClass, Millis};
use flate2::read::GzDecoder;
use serde::Deserialize;
use std::collections::BTreeMap;

const NODES: &str = include_str!("../../data/openb/nodes.csv");
const TASKS: &[u8] = include_bytes!("../../data/openb/tasks.csv.gz");

/// The vendor of every chip of the trace.
pub const VENDOR: &str = "nvidia";

#[derive(Deserialize)]
struct NodeRow {
    sn: String,
    cpu_milli: u64,
    memory_mib: u64,
    gpu: u32,
    model: String,
}

/// Quality of service a task was submitted with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub enum Qos {
    /// Latency sensitive: serves live requests.
    #[serde(rename = "LS")]
    LatencySensitive,
    /// Gets all it asks for.
    Guaranteed,
    /// Gets what it asks for and more when there is more.
    Burstable,
    /// Takes what is left.
    #[serde(rename = "BE")]
    BestEffort,
}

/// One GPU task of the trace.
#[derive(Clone, PartialEq, Debug, Deserialize)]
pub struct Task {
    /// Its name, unique in the trace.
    pub name: String,
    /// CPU it asks for, thousandths of a core.
    pub cpu_milli: u64,
    /// Memory it asks for, MiB.
    pub memory_mib: u64,
    /// GPUs it asks for, at least one.
    pub num_gpu: u64,
    /// Thousandths of each GPU; below 1000 only with one GPU.
    pub gpu_milli: u64,
    /// Models it accepts, separated by `|`; empty for any.
    pub gpu_spec: String,
    /// Its quality of service.
    pub qos: Qos,
    /// When it was created, seconds since the start of the trace.
    pub creation_time: u64,
    /// When it was gone, seconds since the start of the trace.
    pub deletion_time: u64,
    /// When it started, if it ever did.
    pub scheduled_time: Option<u64>,
}

impl Task {
    /// Whether it serves (and is not preemptible), rather than trains.
    pub fn serves(&self) -> bool {
        matches!(self.qos, Qos::LatencySensitive | Qos::Guaranteed)
    }

    /// Seconds it ran; for a task that never started, the seconds it existed.
    pub fn life_s(&self) -> u64 {
        self.deletion_time.saturating_sub(self.scheduled_time.unwrap_or(self.creation_time))
    }

    /// Slots it asks for, in thousandths of a chip.
    pub fn slots(&self) -> u64 {
        if self.num_gpu > 1 { self.num_gpu * 1000 } else { self.gpu_milli }
    }

    /// The job this task becomes. Training gives notice of `grace` and says how often it checkpoints.
    pub fn job(&self, name: String, grace: Millis) -> JobBody {
        let whole = self.num_gpu > 1 || self.gpu_milli >= 1000;
        let fraction = self.gpu_milli as f64 / 1000.0;
        let class = if self.serves() { "serving" } else { "best-effort" };
        JobBody {
            kind: if self.serves() { KindBody::Inference } else { KindBody::Training },
            name,
            queue: if self.serves() { "inference" } else { "training" }.into(),
            priority_class: Some(PriorityBody::Class(class.into())),
            replicas: Some(1),
            chips: whole.then_some(self.num_gpu),
            share: (!whole).then_some(ShareBody { fraction: Some(fraction), memory_mib: None }),
            cpu_milli: self.cpu_milli,
            memory_mib: self.memory_mib,
            device_classes: self.models().map(|model| ClassBody::Name(class_of(model).to_string())).collect(),
            same: None::<SameBody>,
            max_duration: None,
            preemptible: None,
            grace: Some(grace),
            checkpoint_every: (!self.serves()).then_some(Millis::from_secs(60)),
            restart_cost: None,
            min_runtime: None,
            preemption_budget: None,
            replicas_min: None,
            replicas_max: None,
            lease_ttl: None,
            on_node_loss: None,
            unfit: UnfitBody::Wait,
            labels: BTreeMap::from([("trace".to_owned(), "openb".to_owned())]),
            workload: None,
        }
    }

    fn models(&self) -> impl Iterator<Item = &str> {
        self.gpu_spec.split('|').filter(|model| !model.is_empty())
    }
}

/// The device class of a model of the trace, named by the rule the agents use.
pub fn class_of(model: &str) -> DeviceClass {
    DeviceClass::from_product(VENDOR, &product_of(model))
}

fn product_of(model: &str) -> String {
    format!("NVIDIA {model}")
}

/// Memory of a chip, MiB: the size sold for models that are sold, an assumption for `G2` and `G3`, which the trace
/// does not disclose.
fn memory_mib_of(model: &str) -> u64 {
    match model {
        "T4" => 15_360,
        "P100" | "V100M16" => 16_384,
        "A10" => 23_028,
        "G2" => 24_576,
        "V100M32" => 32_768,
        _ => 81_920,
    }
}

/// The first `count` GPU nodes of the trace (all 1,213 of them at most).
pub fn nodes(count: usize) -> anyhow::Result<Vec<NodeShape>> {
    let mut reader = csv::Reader::from_reader(NODES.as_bytes());
    let rows = reader.deserialize::<NodeRow>().take(count);
    rows.map(|row| {
        let row = row.context("read a node of the openb trace")?;
        Ok(NodeShape {
            name: row.sn,
            cpu_milli: row.cpu_milli,
            memory_mib: row.memory_mib,
            vendor: VENDOR.into(),
            product: product_of(&row.model),
            chips: row.gpu,
            chip_memory_mib: memory_mib_of(&row.model),
        })
    })
    .collect()
}

/// The first `count` GPU tasks of the trace, in file order, which is the order of their creation.
pub fn tasks(count: usize) -> anyhow::Result<Vec<Task>> {
    let mut reader = csv::Reader::from_reader(GzDecoder::new(TASKS));
    let rows = reader.deserialize::<Task>().take(count);
    rows.map(|row| row.context("read a task of the openb trace")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use chiptide_model::{ChipDemand, Policy};

    #[test]
    fn the_fleet_is_the_published_one() {
        let nodes = nodes(usize::MAX).expect("the embedded nodes");
        assert_eq!(nodes.len(), 1213);
        assert_eq!(nodes.iter().map(|node| node.chips).sum::<u32>(), 6212);
        let v100 = nodes.iter().find(|node| node.product.ends_with("V100M32")).expect("a V100");
        assert_eq!(DeviceClass::from_product(&v100.vendor, &v100.product).as_str(), "nvidia-v100m32");
    }

    #[test]
    fn every_task_becomes_a_job_the_model_accepts() {
        let tasks = tasks(usize::MAX).expect("the embedded tasks");
        assert_eq!(tasks.len(), 7064);
        assert_eq!(tasks.iter().map(Task::slots).sum::<u64>(), 6_086_800);
        for task in &tasks {
            let spec = task.job(task.name.clone(), Millis(2000)).into_spec(&Policy::default()).expect("a valid job");
            let slots = match spec.demand {
                ChipDemand::Chips(chips) => u64::from(chips) * 1000,
                ChipDemand::ShareSlots(slots) => u64::from(slots),
                ChipDemand::ShareMemory(mib) => panic!("{} asks for {mib} MiB of a chip", task.name),
            };
            assert_eq!(slots, task.slots(), "{}", task.name);
            assert_eq!(spec.preemptible, !task.serves());
        }
    }

    #[test]
    fn models_become_device_classes() {
        let mut task = tasks(1).expect("the embedded tasks").remove(0);
        task.gpu_spec = "V100M16|V100M32".into();
        let spec = task.job("t".into(), Millis(2000)).into_spec(&Policy::default()).expect("a valid job");
        assert_eq!(spec.classes_by_speed(), [class_of("V100M16"), class_of("V100M32")]);
        assert_eq!(spec.demand, ChipDemand::Chips(1));
    }
}
