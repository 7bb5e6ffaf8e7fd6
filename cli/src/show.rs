//! What people see of jobs, leases, nodes and chips.

mod access;
mod chip;
mod explain;
mod job;
mod lease;
mod node;
mod policy;
mod queue;

pub(crate) use access::{audit, tokens, whoami};
pub(crate) use chip::{chip, chips};
pub(crate) use explain::explanation;
pub(crate) use job::{job, jobs, line as job_line, why};
pub(crate) use lease::{lease, leases};
pub(crate) use node::{node, nodes};
pub(crate) use policy::{changes, dry_run, policy, policy_applied, policy_versions};
pub(crate) use queue::queues;

use comfy_table::Table;

/// Two columns, a name and a value each, absent values left out.
struct Facts(Table);

impl Facts {
    fn new() -> Facts {
        Facts(crate::output::table(&[]))
    }

    fn add(&mut self, name: &str, value: impl Into<comfy_table::Cell>) {
        self.0.add_row([comfy_table::Cell::new(name), value.into()]);
    }

    fn add_some(&mut self, name: &str, value: Option<String>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    fn text(&self) -> String {
        crate::output::text(&self.0)
    }
}

/// `key=value, …`, or nothing.
fn pairs(pairs: &std::collections::BTreeMap<String, String>) -> Option<String> {
    let words: Vec<String> = pairs.iter().map(|(key, value)| format!("{key}={value}")).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// MiB as people say it.
fn memory(mib: u64) -> String {
    match mib {
        0..1024 => format!("{mib} MiB"),
        _ if mib.is_multiple_of(1024) => format!("{} GiB", mib / 1024),
        _ => format!("{:.1} GiB", mib as f64 / 1024.0),
    }
}

/// Thousandths of a core as people say it.
fn cores(milli: u64) -> String {
    let text = format!("{:.3}", milli as f64 / 1000.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_well() {
        assert_eq!([memory(512), memory(2048), memory(1536)], ["512 MiB", "2 GiB", "1.5 GiB"]);
        assert_eq!([cores(0), cores(1500), cores(8000)], ["0", "1.5", "8"]);
    }
}
