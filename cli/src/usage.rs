//! `chiptide usage`: who had how much chip time, and what became of it.

use crate::args::Usage;
use crate::failure::Failure;
use crate::output::{Out, table, text};
use chiptide_api::Client;
use chiptide_api::usage::{UsageRowView, UsageView};
use chrono::{TimeDelta, Utc};

/// Prints the accounts.
pub(crate) async fn print(asked: &Usage, client: &Client, out: Out) -> Result<(), Failure> {
    let since = TimeDelta::milliseconds(i64::try_from(asked.since.0).unwrap_or(i64::MAX / 2));
    let from = Utc::now().checked_sub_signed(since).unwrap_or_default();
    let mut query = vec![("by", asked.by.join(",")), ("from", from.to_rfc3339())];
    query.extend(asked.queue.clone().map(|queue| ("queue", queue)));
    query.extend(asked.device_class.clone().map(|class| ("device_class", class)));
    out.print(&client.usage(&query).await?, show)
}

/// The accounts in chip-hours; columns that say nothing are left out.
fn show(usage: &UsageView) -> String {
    type Word = fn(&UsageRowView) -> Option<String>;
    let words: [(&str, Word); 5] = [
        ("TIME", |row| row.time.map(|time| time.format("%Y-%m-%d %H:%M").to_string())),
        ("QUEUE", |row| row.queue.clone()),
        ("CLASS", |row| row.device_class.clone()),
        ("LABEL", |row| row.label.clone()),
        ("JOB", |row| row.job.map(|job| job.to_string())),
    ];
    type Amount = fn(&UsageRowView) -> f64;
    let amounts: [(&str, Amount); 10] = [
        ("GRANTED", |row| row.granted),
        ("BUSY", |row| row.busy),
        ("VACATING", |row| row.vacating),
        ("IDLE", |row| row.idle),
        ("OUT", |row| row.out_of_service),
        ("TOTAL", |row| row.total),
        ("BORROWED", |row| row.borrowed),
        ("LENT", |row| row.lent),
        ("LOST/PREEMPT", |row| row.lost_to_preemption),
        ("LOST/FAULT", |row| row.lost_to_faults),
    ];
    let told: Vec<_> = words.iter().filter(|(_, word)| usage.items.iter().any(|row| word(row).is_some())).collect();
    let header: Vec<&str> = told.iter().map(|(name, _)| *name).chain(amounts.iter().map(|(name, _)| *name)).collect();
    let mut rows = table(&header);
    for row in &usage.items {
        let hours = amounts.iter().map(|(_, amount)| format!("{:.2}", amount(row) / 3600.0));
        rows.add_row(
            told.iter().map(|(_, word)| word(row).filter(|w| !w.is_empty()).unwrap_or("-".into())).chain(hours),
        );
    }
    let as_of = usage.as_of.map_or("never".to_owned(), |at| at.format("%Y-%m-%d %H:%M:%S").to_string());
    format!("{}chip-hours, up to {as_of}\n", text(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_were_not_told_apart_are_left_out() {
        let row = UsageRowView { queue: Some("ads".into()), granted: 5400.0, total: 7200.0, ..UsageRowView::default() };
        let at = chrono::DateTime::from_timestamp(0, 0).expect("a moment");
        let shown = show(&UsageView { from: at, to: at, as_of: None, items: vec![row] });
        expect_test::expect![[r#"
            QUEUE  GRANTED  BUSY  VACATING  IDLE  OUT   TOTAL  BORROWED  LENT  LOST/PREEMPT  LOST/FAULT
            ads    1.50     0.00  0.00      0.00  0.00  2.00   0.00      0.00  0.00          0.00
            chip-hours, up to never
        "#]]
        .assert_eq(&shown);
    }
}
