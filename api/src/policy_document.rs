//! The shape of the policy document: what `PUT /v1/policy` takes, for editors and for the contract. Nothing is read into
//! these types: the model reads policies. A test holds the two together, field by field.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use utoipa::{PartialSchema, ToSchema};

/// Everything an admin decides. What is left out is as in a new cluster.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PolicyDocument {
    /// Ignored: the cluster counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// Queues by name. Those without queues below them take jobs.
    pub queues: BTreeMap<String, QueueDocument>,
    /// Priority classes by name.
    pub priority_classes: BTreeMap<String, PriorityClassDocument>,
    /// How long is waited before something is given up.
    pub bounds: BoundsDocument,
    /// What happens when a node is no longer heard.
    pub node_loss: NodeLossDocument,
    /// How queues share what is beyond their guarantees.
    pub fair_share: FairShareDocument,
    /// Facts about device classes, by class.
    pub device_classes: BTreeMap<String, DeviceClassDocument>,
    /// Chips kept free for jobs of high priority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserve: Option<ReserveDocument>,
    /// Reservations for jobs that wait, and how others may pass them.
    pub backfill: BackfillDocument,
    /// Chips set aside by the calendar.
    pub calendar: Vec<CalendarDocument>,
    /// When running jobs may be moved to make room for a gang; absent: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consolidation: Option<ConsolidationDocument>,
}

/// Whole chips by device class; `*` counts chips of any class at their relative speed.
pub type QuotaDocument = BTreeMap<String, u32>;

/// A queue.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QueueDocument {
    /// The queue above it; its use is charged there as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Queues at the top that name the same cohort lend to each other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cohort: Option<String>,
    /// What it gets whenever it wants it.
    #[schema(example = json!({"nvidia-h20": 64, "*": 100}))]
    pub guaranteed: QuotaDocument,
    /// What it never exceeds.
    #[schema(example = json!({"*": 200}))]
    pub limit: QuotaDocument,
    /// Its part of what is beyond the guarantees, against its siblings, 1 to 1,000,000; 1 if absent.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub weight: u32,
    /// Who may submit jobs to it and those below it, beside tokens that name the queue: ids of callers.
    pub submitters: BTreeSet<String>,
    /// How often its jobs may be preempted in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preemption_budget: Option<BudgetDocument>,
}

/// How often the jobs of one owner may be preempted.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BudgetDocument {
    /// At most so many within 24 hours.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 1000)]
    pub per_day: Option<u32>,
    /// At least this long from one to the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cool_down: Option<Span>,
}

/// A span of time: `90s`, `1h30m`, `250ms`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Span(pub String);

impl PartialSchema for Span {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        let object = utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some("A span of time: `90s`, `1h30m`, `250ms`; at most ten years."))
            .pattern(Some(r"^([0-9]+(d|h|m|s|ms))+$"));
        object.into()
    }
}
impl ToSchema for Span {
    fn name() -> std::borrow::Cow<'static, str> {
        "Span".into()
    }
}

/// A named priority.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PriorityClassDocument {
    /// Higher goes first.
    pub value: i32,
    /// Whether jobs of the class may be preempted unless they say otherwise.
    pub preemptible: bool,
    /// The grace of its jobs that name none; 30s if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<Span>,
    /// `min_runtime` of its jobs that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_runtime: Option<Span>,
    /// `preemption_budget` of its jobs that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preemption_budget: Option<BudgetDocument>,
}

/// How long the allocator waits before it gives up on something.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BoundsDocument {
    /// A claim whose chips are not all proven vacant this long after the last grace ended is given up whole.
    pub claim: Span,
    /// A chip not proven vacant this long after its lease ended is quarantined.
    pub vacate: Span,
    /// A lease that not all of its nodes have confirmed this long after its grant, although they report, is ended whole;
    /// `null` never does that.
    pub start: Option<Span>,
    /// Longest grace a job may ask for.
    pub grace_max: Span,
    /// The most that one extension adds to the deadline of a lease under notice; `0s` allows none.
    pub extension_max: Span,
}

/// How the loss of a node is met.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NodeLossDocument {
    /// What training jobs want that do not say: `wait`, `fence` or `duplicate`.
    pub training: String,
    /// What inference jobs want that do not say.
    pub inference: String,
    /// The ttl of fences that name none, at least 5s.
    pub ttl: Span,
    /// From SIGTERM to the kill, when a node ends fenced work.
    pub kill: Span,
    /// How late a node may notice that a ttl has passed.
    pub watchdog: Span,
    /// How far a clock may be off, in millionths.
    #[schema(maximum = 100_000)]
    pub drift_ppm: u32,
    /// Added to every wait, for what clocks cannot tell apart.
    pub tick: Span,
    /// How long after its node fell silent a lease of a `duplicate` job is called ended.
    pub duplicate_after: Span,
}

/// How queues share what is beyond their guarantees.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FairShareDocument {
    /// Past use counts half after this long; absent looks at the present only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half_life: Option<Span>,
}

/// What an admin knows of a kind of chip.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DeviceClassDocument {
    /// Speed against a normalised chip, in thousandths; 1000 if absent.
    #[schema(minimum = 1, maximum = 1_000_000)]
    pub speed_permille: u32,
    /// How the chips of a node may be handed out, where the vendor has rules.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replicas: Option<ReplicaRuleDocument>,
}

/// A vendor's rule for the whole chips of one replica on one node.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ReplicaRuleDocument {
    /// How many chips a replica may have; empty means any number.
    pub chips: BTreeSet<u16>,
    /// The chips of a node form sets of this many, by position.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set: Option<u16>,
}

/// Chips kept free for jobs of high priority.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReserveDocument {
    /// Jobs below this priority leave the reserve alone.
    pub min_priority: i32,
    /// Chips kept free, by device class.
    pub chips: BTreeMap<String, u32>,
    /// Chips of a block: the largest replica that shall find room at once; 1 if absent.
    #[serde(default)]
    #[schema(minimum = 1)]
    pub block: u16,
}

/// How long waiting jobs are kept from starving, and how small jobs may pass them meanwhile.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BackfillDocument {
    /// So many blocked jobs may hold a reservation; 0 turns reservations off.
    #[schema(maximum = 64)]
    pub reservations_max: u32,
    /// A job that wants fewer chips in all gets none.
    pub chips_min: u32,
    /// An earlier start is looked for at most this often.
    pub replan_every: Span,
    /// So long before a calendar reservation begins its chips are chosen.
    pub calendar_lead: Span,
}

/// Chips set aside for a queue, from one moment to another.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CalendarDocument {
    /// Its name, unique in the calendar.
    pub name: String,
    /// From then on only jobs of the queue start on the chips, milliseconds since 1970.
    pub from: i64,
    /// Then the chips are anyone's again, milliseconds since 1970.
    pub to: i64,
    /// The queue; those below it count as well.
    pub queue: String,
    /// Which chips; absent takes any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_class: Option<String>,
    /// How many whole chips.
    #[schema(minimum = 1)]
    pub chips: u32,
    /// They come in groups of so many on one node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1)]
    pub per_node: Option<u16>,
}

/// When running jobs may be moved to make room for a gang.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConsolidationDocument {
    /// The work that the moves for one gang may lose in all, in chip-milliseconds.
    pub lost_chip_ms_max: u64,
    /// At least this long from one consolidation to the next.
    pub cool_down: Span,
}

/// The JSON Schema of the document, for editors: `policy.schema.json`.
pub fn json_schema() -> serde_json::Value {
    let mut parts = vec![(PolicyDocument::name().into_owned(), PolicyDocument::schema())];
    PolicyDocument::schemas(&mut parts);
    let text = serde_json::to_string(&BTreeMap::from_iter(parts)).expect("schemas are always JSON");
    let text = text.replace("#/components/schemas/", "#/$defs/");
    let defs: serde_json::Value = serde_json::from_str(&text).expect("it was JSON, and no quote was touched");
    serde_json::json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Chiptide policy",
        "$ref": "#/$defs/PolicyDocument",
        "$defs": defs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use chiptide_model::Policy;
    use serde_json::{Value, json};

    /// A policy in which every field is there.
    fn whole() -> Value {
        json!({
            "queues": {"ads": {"parent": "team", "guaranteed": {"nvidia-h20": 1}, "limit": {"*": 9}, "weight": 2, "submitters": ["ci"],
                "preemption_budget": {"per_day": 5, "cool_down": "1m"}}, "team": {"cohort": "all", "weight": 1}},
            "priority_classes": {"high": {"value": 9, "preemptible": true, "grace": "1m", "min_runtime": "1m",
                "preemption_budget": {"per_day": 1}}},
            "bounds": {"claim": "1m30s", "vacate": "1m", "start": "5m", "grace_max": "1h", "extension_max": "30s"},
            "node_loss": {"training": "wait", "inference": "fence", "ttl": "20s", "kill": "10s", "watchdog": "5s",
                "drift_ppm": 500, "tick": "1s", "duplicate_after": "5s"},
            "fair_share": {"half_life": "1d"},
            "device_classes": {"nvidia-h20": {"speed_permille": 900, "replicas": {"chips": [1, 2], "set": 4}}},
            "reserve": {"min_priority": 800, "chips": {"nvidia-h20": 2}, "block": 2},
            "backfill": {"reservations_max": 4, "chips_min": 2, "replan_every": "30s", "calendar_lead": "1d"},
            "calendar": [{"name": "night", "from": 1, "to": 2, "queue": "ads", "device_class": "nvidia-h20", "chips": 4,
                "per_node": 2}],
            "consolidation": {"lost_chip_ms_max": 1, "cool_down": "10m"}
        })
    }

    #[test]
    fn the_schema_and_the_model_have_the_same_fields() {
        let model: Policy = serde_json::from_value(whole()).expect("the model knows every field of the schema");
        assert_eq!(model.faults(), Vec::new());
        let written = crate::policy::document(&model);
        assert_eq!(written, whole(), "every field is in the sample");
        let document: PolicyDocument = serde_json::from_value(written).expect("the schema knows every field");
        let again = serde_json::to_value(document).expect("JSON");
        let lost: Vec<String> = keys("", &whole()).into_iter().filter(|key| !keys("", &again).contains(key)).collect();
        assert_eq!(lost, Vec::<String>::new());
    }

    fn keys(path: &str, value: &Value) -> Vec<String> {
        let below = |name: &str, value: &Value| {
            let path = format!("{path}.{name}");
            keys(&path, value).into_iter().chain([path.clone()]).collect::<Vec<_>>()
        };
        match value {
            Value::Object(fields) => fields.iter().flat_map(|(name, value)| below(name, value)).collect(),
            Value::Array(items) => items.iter().flat_map(|item| below("*", item)).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn the_committed_schema_is_what_the_types_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../policy.schema.json");
        let said = serde_json::to_string_pretty(&json_schema()).expect("JSON") + "\n";
        if std::env::var_os("UPDATE_API").is_some() {
            std::fs::write(path, &said).expect("written");
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(committed == said, "policy.schema.json is stale: run `UPDATE_API=1 cargo test -p chiptide-api schema`");
    }
}
