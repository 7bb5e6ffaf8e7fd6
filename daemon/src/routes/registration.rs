//! A registration body, parsed into the model: a peer may send anything.

use chiptide_allocator::{EPOCH_SEEN_MAX, Seen};
use chiptide_api::node::{ChipBody, HealthBody, RegisterBody};
use chiptide_api::problem::Invalid;
use chiptide_model::{ChipFacts, ChipId, DeviceClass, Health, LeaseId, NodeFacts};
use std::collections::{BTreeMap, BTreeSet};

/// Most chips of one node.
const CHIPS_MAX: usize = 128;
/// Most chips of which a node may remember an epoch: those it has, and those it had.
const SEEN_MAX: usize = 1024;
/// Longest free text a peer may send in one field, in bytes.
const TEXT_MAX: usize = 256;

/// What a registration says of a node.
pub(super) struct Registration {
    pub(super) facts: NodeFacts,
    pub(super) chips: Vec<(ChipFacts, Health)>,
    pub(super) boot_id: String,
    pub(super) seen: Vec<Seen>,
}

/// Parses a registration, or names the field at fault.
pub(super) fn parse(body: RegisterBody) -> Result<Registration, Invalid> {
    for (field, text) in [("boot_id", &body.boot_id), ("agent_version", &body.agent_version)] {
        text_fits(field, text)?;
    }
    if body.boot_id.is_empty() {
        return Err(Invalid::new("invalid_field", "boot_id", "must not be empty"));
    }
    let free = [("rack", &body.rack), ("link_domain", &body.link_domain), ("driver_version", &body.driver_version)];
    for (field, text) in free {
        text.iter().try_for_each(|text| text_fits(field, text))?;
    }
    labels_fit(&body.labels)?;
    for (field, amount) in [("cpu_milli", body.cpu_milli), ("memory_mib", body.memory_mib)] {
        if amount > 1_000_000_000_000 {
            return Err(Invalid::new("out_of_range", field, "at most 10^12"));
        }
    }
    if body.chips.len() > CHIPS_MAX {
        return Err(Invalid::new("out_of_range", "chips", format!("at most {CHIPS_MAX} chips")));
    }
    let mut seen = BTreeSet::new();
    let mut chips = Vec::with_capacity(body.chips.len());
    for (index, chip) in body.chips.into_iter().enumerate() {
        let parsed = parse_chip(chip).map_err(|invalid| invalid.under(&format!("chips[{index}]")))?;
        if !seen.insert(parsed.0.id.clone()) {
            return Err(Invalid::new("duplicate_chip", format!("chips[{index}].id"), "the chip is listed twice"));
        }
        chips.push(parsed);
    }
    if body.seen.len() > SEEN_MAX {
        return Err(Invalid::new("out_of_range", "seen", format!("at most {SEEN_MAX}")));
    }
    let seen = body.seen.iter().enumerate().map(|(index, seen)| {
        let field = |name: &str| format!("seen[{index}].{name}");
        let chip = ChipId::new(&seen.chip).map_err(|e| Invalid::new("invalid_field", field("chip"), e.to_string()))?;
        Ok(Seen { chip, lease: LeaseId(seen.lease), epoch: epoch(field("epoch"), seen.epoch)? })
    });
    let seen = seen.collect::<Result<_, Invalid>>()?;
    let facts = NodeFacts {
        cpu_milli: body.cpu_milli,
        memory_mib: body.memory_mib,
        rack: body.rack,
        link_domain: body.link_domain,
        agent_version: body.agent_version,
        driver_version: body.driver_version,
        labels: body.labels,
    };
    Ok(Registration { facts, chips, boot_id: body.boot_id, seen })
}

/// A lease epoch that a node says it has seen.
pub(super) fn epoch(field: String, seen: u64) -> Result<u64, Invalid> {
    if seen <= EPOCH_SEEN_MAX {
        Ok(seen)
    } else {
        Err(Invalid::new("out_of_range", field, "no lease epoch is so high"))
    }
}

/// What an admin says for the log.
pub(super) fn reason(text: &str) -> Result<String, Invalid> {
    let text = text.trim();
    if text.is_empty() || text.len() > TEXT_MAX || text.chars().any(char::is_control) {
        let detail = format!("1 to {TEXT_MAX} bytes, without control characters");
        return Err(Invalid::new("invalid_field", "reason", detail));
    }
    Ok(text.to_owned())
}

fn parse_chip(body: ChipBody) -> Result<(ChipFacts, Health), Invalid> {
    let name =
        |field: &str, text: &str| ChipId::new(text).map_err(|e| Invalid::new("invalid_field", field, e.to_string()));
    for (field, text) in [("vendor", &body.vendor), ("product", &body.product)] {
        text_fits(field, text)?;
    }
    for (field, text) in [("serial", &body.serial), ("pci_bus_id", &body.pci_bus_id)] {
        text.iter().try_for_each(|text| text_fits(field, text))?;
    }
    if body.memory_mib > 100_000_000 {
        return Err(Invalid::new("out_of_range", "memory_mib", "at most 10^8"));
    }
    if body.link_peers.len() > CHIPS_MAX {
        return Err(Invalid::new("out_of_range", "link_peers", format!("at most {CHIPS_MAX}")));
    }
    let class = match &body.device_class {
        None => DeviceClass::from_product(&body.vendor, &body.product),
        Some(class) => {
            DeviceClass::new(class).map_err(|e| Invalid::new("invalid_field", "device_class", e.to_string()))?
        }
    };
    let facts = ChipFacts {
        id: name("id", &body.id)?,
        class,
        memory_mib: body.memory_mib,
        link_peers: body.link_peers.iter().map(|peer| name("link_peers", peer)).collect::<Result<_, _>>()?,
        vendor: body.vendor,
        product: body.product,
        serial: body.serial,
        pci_bus_id: body.pci_bus_id,
        numa_node: body.numa_node,
    };
    Ok((facts, health(&body.health)))
}

/// Health as the model has it, its free text cut to size.
pub(super) fn health(body: &HealthBody) -> Health {
    let cut = |text: &str| text.chars().filter(|c| *c != '\0').take(TEXT_MAX).collect();
    match body {
        HealthBody::Healthy => Health::Healthy,
        HealthBody::Unreadable { detail } => Health::Unreadable { detail: cut(detail) },
        HealthBody::Unhealthy { detail } => Health::Unhealthy { detail: cut(detail) },
    }
}

fn text_fits(field: &str, text: &str) -> Result<(), Invalid> {
    if text.len() > TEXT_MAX || text.contains('\0') {
        return Err(Invalid::new("invalid_field", field, format!("at most {TEXT_MAX} bytes, without NUL")));
    }
    Ok(())
}

fn labels_fit(labels: &BTreeMap<String, String>) -> Result<(), Invalid> {
    if labels.len() > chiptide_api::job::LABELS_MAX {
        return Err(Invalid::new(
            "out_of_range",
            "labels",
            format!("at most {} labels", chiptide_api::job::LABELS_MAX),
        ));
    }
    labels.iter().try_for_each(|(key, value)| {
        text_fits("labels", key)?;
        text_fits("labels", value)
    })
}
