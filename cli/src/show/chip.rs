//! Chips for people.

use super::memory;
use crate::output::{state, table, text};
use chiptide_api::chip::{ChipView, HolderView};

/// A row a chip. What could not be read is `?`, never zero.
pub(crate) fn chips(chips: &[ChipView]) -> String {
    let mut table = table(&["CHIP", "NODE", "CLASS", "STATE", "BUSY", "MEMORY", "POWER", "HELD BY", "WHY"]);
    for chip in chips {
        let values = chip.reading.as_ref().map(|reading| &reading.values);
        let unread = || "?".to_owned();
        let busy = values.and_then(|v| v.utilization).map_or_else(unread, |part| format!("{:.0}%", part * 100.0));
        let used = values.and_then(|v| v.memory_used_mib).map_or_else(unread, memory);
        let power = values.and_then(|v| v.power_watts).map_or_else(unread, |watts| format!("{watts:.0} W"));
        let held_by: Vec<String> = chip.holders.iter().map(holder).collect();
        table.add_row([
            chip.id.clone().into(),
            chip.node.clone().into(),
            chip.device_class.clone().into(),
            state(&chip.state),
            busy.into(),
            format!("{used} of {}", memory(chip.memory_mib)).into(),
            power.into(),
            held_by.join(", ").into(),
            comfy_table::Cell::new(why(chip)),
        ]);
    }
    text(&table)
}

/// One chip, and below it every fault it has or had.
pub(crate) fn chip(chip: &ChipView) -> String {
    let mut shown = chips(std::slice::from_ref(chip));
    if !chip.faults.is_empty() {
        let mut table = table(&["SINCE", "FAULT", "CODE", "CLASS", "WHAT", "ENDED"]);
        for fault in &chip.faults {
            let ended = fault.ended.clone().unwrap_or_else(|| if fault.open { "no".into() } else { "-".into() });
            table.add_row([
                fault.since.format("%Y-%m-%d %H:%M:%S").to_string(),
                fault.dimension.clone(),
                fault.code.to_string(),
                fault.class.clone(),
                fault.detail.clone(),
                ended,
            ]);
        }
        shown.push('\n');
        shown.push_str(&text(&table));
    }
    shown
}

fn holder(holder: &HolderView) -> String {
    let share = if holder.slots == 1000 { String::new() } else { format!(" ({}/1000)", holder.slots) };
    format!("{}{share}{}", holder.job, if holder.reclaiming { " leaving" } else { "" })
}

fn why(chip: &ChipView) -> String {
    let promised = chip.promised_to.map(|job| format!("promised to {job}"));
    let words: Vec<String> = chip.reason.clone().into_iter().chain(promised).collect();
    words.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn what_could_not_be_read_is_never_zero() {
        let json = serde_json::json!([
            {"id": "GPU-1", "node": "n1", "device_class": "nvidia-h20", "product": "NVIDIA H20", "memory_mib": 98304,
             "state": "held", "health": "healthy", "lease_epoch": 3, "free_slots": 500,
             "holders": [{"lease": "0190c2f0-0000-7000-8000-0000000000aa", "job": "0190c2f0-0000-7000-8000-000000000001",
                          "slots": 500, "epoch": 3, "reclaiming": false}],
             "reading": {"at": "2026-11-24T12:00:00Z", "utilization": 0.875, "memory_used_mib": 4096, "power_watts": 310.4}},
            {"id": "GPU-2", "node": "n1", "device_class": "nvidia-h20", "product": "NVIDIA H20", "memory_mib": 98304,
             "state": "quarantined", "reason": "not vacated within 60s", "health": "healthy", "lease_epoch": 1,
             "free_slots": 0, "holders": []}
        ]);
        let list: Vec<ChipView> = serde_json::from_value(json).expect("chips");
        expect![[r#"
            CHIP   NODE  CLASS       STATE        BUSY  MEMORY           POWER  HELD BY                                          WHY
            GPU-1  n1    nvidia-h20  held         88%   4 GiB of 96 GiB  310 W  0190c2f0-0000-7000-8000-000000000001 (500/1000)
            GPU-2  n1    nvidia-h20  quarantined  ?     ? of 96 GiB      ?                                                       not vacated within 60s
        "#]]
        .assert_eq(&chips(&list));
    }
}
