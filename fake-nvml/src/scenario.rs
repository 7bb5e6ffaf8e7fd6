//! The format of `scenario.json`: one node's chips, what they measure, and how they misbehave. Layers: the built-in H20,
//! then `defaults`, then the chip's own entry; a later layer replaces a value, `null` takes it away (not supported).

use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// One node as scripted.
#[derive(Clone, PartialEq, Debug)]
pub struct Scenario {
    /// What `nvmlSystemGetDriverVersion` says.
    pub driver_version: String,
    /// When set, initialising fails with this code.
    pub init_error: Option<u32>,
    /// Calls that concern no chip and fail: name to code.
    pub errors: BTreeMap<String, u32>,
    /// The chips.
    pub chips: Vec<Chip>,
}

/// One chip as scripted. `None` means the chip does not support it.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chip {
    /// Unique id.
    pub uuid: String,
    /// Product name.
    pub name: String,
    /// Serial number.
    pub serial: Option<String>,
    /// PCI bus id, `DDDDDDDD:BB:DD.F`.
    pub pci_bus_id: String,
    /// Number of the device node.
    pub minor: u32,
    /// NUMA node.
    pub numa_node: Option<u32>,
    /// Total memory.
    pub memory_mib: Option<u64>,
    /// What the driver keeps for itself, part of the total; `nvmlDeviceGetMemoryInfo` (v1) counts it as used.
    pub reserved_mib: u64,
    /// Memory in use with no process at all.
    pub idle_mib: u64,
    /// Memory in use that nobody owns: a leak.
    pub leak_mib: u64,
    /// How long the memory of a process stays in use after its death.
    pub linger_ms: u64,
    /// Utilisation in percent without and with a process.
    pub idle_utilization: Option<u32>,
    /// Utilisation in percent while a process is listed.
    pub busy_utilization: Option<u32>,
    /// Power draw without a process.
    pub idle_power_watts: Option<f64>,
    /// Power draw with one.
    pub busy_power_watts: Option<f64>,
    /// Enforced power limit.
    pub power_limit_watts: Option<f64>,
    /// Temperature.
    pub temperature_celsius: Option<u32>,
    /// Clock of the compute units.
    pub sm_clock_mhz: Option<u32>,
    /// Clock of the memory.
    pub memory_clock_mhz: Option<u32>,
    /// Corrected memory errors.
    pub ecc_corrected: Option<u64>,
    /// Uncorrected memory errors.
    pub ecc_uncorrected: Option<u64>,
    /// Row remapping waits for a reset.
    pub remap_pending: bool,
    /// Row remapping has failed.
    pub remap_failed: bool,
    /// The driver's recovery action: 0 none, 1 reset, 2 reboot, 3 and 4 drain.
    pub recovery_action: u32,
    /// Chips reached over an active NVLink, by position in `chips`.
    pub link_peers: Vec<usize>,
    /// Processes listed whatever `/proc` says: ghosts, or the work of another pid namespace.
    pub processes: Vec<Listed>,
    /// XIDs so far, oldest first: whoever listens is told of those that are added.
    pub xids: Vec<u32>,
    /// Not enumerated at all: the count shrinks and the chips behind it move up.
    pub absent: bool,
    /// Fallen off the bus: every call says so.
    pub lost: bool,
    /// Every call fails with this code.
    pub error: Option<u32>,
    /// Calls that fail: name to code.
    pub errors: BTreeMap<String, u32>,
    /// Every call takes this long.
    pub delay_ms: u64,
}

/// A process listed by the scenario itself.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    /// Its pid.
    pub pid: u32,
    /// Memory it holds; not known to the driver when absent.
    #[serde(default)]
    pub mib: Option<u64>,
    /// In the graphics list instead of the compute list.
    #[serde(default)]
    pub graphics: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default = "driver_version")]
    driver_version: String,
    #[serde(default)]
    seed: String,
    init_error: Option<u32>,
    #[serde(default)]
    errors: BTreeMap<String, u32>,
    count: Option<usize>,
    #[serde(default)]
    defaults: Map<String, Value>,
    #[serde(default)]
    chips: Vec<Map<String, Value>>,
}

impl Scenario {
    /// Reads the file's text. `count` chips, or as many as `chips` has entries when there are more.
    pub fn parse(text: &str) -> Result<Scenario, serde_json::Error> {
        let file: File = serde_json::from_str(text)?;
        let count = file.count.unwrap_or(0).max(file.chips.len());
        let none = Map::new();
        let chips = (0..count).map(|index| {
            let mut layers = built_in(&file.seed, index);
            for layer in [&file.defaults, file.chips.get(index).unwrap_or(&none)] {
                layers.extend(layer.clone());
            }
            serde_json::from_value(Value::Object(layers))
        });
        Ok(Scenario {
            chips: chips.collect::<Result<_, _>>()?,
            driver_version: file.driver_version,
            init_error: file.init_error,
            errors: file.errors,
        })
    }
}

fn driver_version() -> String {
    "580.95.05".to_owned()
}

/// An idle H20. Ids differ by `seed`, so that several nodes on one machine have chips of their own.
fn built_in(seed: &str, index: usize) -> Map<String, Value> {
    let id = fingerprint(seed, index);
    let chip = json!({
        "uuid": format!("GPU-{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
            id >> 32, (id >> 16) & 0xffff, id & 0xfff, (id >> 4) & 0xfff, id & 0xffff_ffff_ffff),
        "name": "NVIDIA H20",
        "serial": format!("16{:011}", id % 100_000_000_000),
        "pci_bus_id": format!("00000000:{:02X}:00.0", (0x10 + index * 0x10) & 0xff),
        "minor": index,
        "numa_node": index / 4,
        "memory_mib": 97_871, "reserved_mib": 620, "idle_mib": 1, "leak_mib": 0, "linger_ms": 0,
        "idle_utilization": 0, "busy_utilization": 87,
        "idle_power_watts": 74.0, "busy_power_watts": 405.5, "power_limit_watts": 500.0,
        "temperature_celsius": 33, "sm_clock_mhz": 345, "memory_clock_mhz": 2619,
        "ecc_corrected": 0, "ecc_uncorrected": 0,
        "remap_pending": false, "remap_failed": false, "recovery_action": 0,
        "link_peers": [], "processes": [], "xids": [],
        "absent": false, "lost": false, "error": null, "errors": {}, "delay_ms": 0,
    });
    match chip {
        Value::Object(chip) => chip,
        _ => Map::new(),
    }
}

/// FNV-1a of the seed and the position: the same everywhere, always.
fn fingerprint(seed: &str, index: usize) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let bytes = seed.bytes().chain([0]).chain(index.to_le_bytes());
    bytes.chain([0; 4]).fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_replace_and_null_takes_away() {
        let text = r#"{"count": 3, "defaults": {"name": "NVIDIA H200", "ecc_corrected": null},
            "chips": [{}, {"lost": true, "serial": null, "errors": {"nvmlDeviceGetName": 999}}]}"#;
        let chips = Scenario::parse(text).expect("a scenario").chips;
        assert_eq!(chips.len(), 3);
        assert!(chips.iter().all(|chip| chip.name == "NVIDIA H200" && chip.ecc_corrected.is_none()));
        assert!(chips[1].lost && chips[1].serial.is_none() && chips[1].errors["nvmlDeviceGetName"] == 999);
        assert!(chips[0].serial.is_some() && chips[0].uuid != chips[2].uuid);
    }

    #[test]
    fn a_typing_error_is_refused() {
        assert!(Scenario::parse(r#"{"count": 1, "defaults": {"lots": true}}"#).is_err());
        assert!(Scenario::parse(r#"{"cuont": 1}"#).is_err());
        assert!(Scenario::parse(r#"{"count": 8, "chi"#).is_err());
    }

    #[test]
    fn nodes_of_different_seeds_share_no_chip() {
        let uuid = |seed: &str| {
            Scenario::parse(&format!(r#"{{"seed": "{seed}", "count": 1}}"#)).expect("valid").chips.remove(0).uuid
        };
        assert_eq!(uuid("n1"), uuid("n1"));
        assert_ne!(uuid("n1"), uuid("n2"));
        assert_eq!(uuid("n1").len(), "GPU-00000000-0000-4000-8000-000000000000".len());
    }
}
