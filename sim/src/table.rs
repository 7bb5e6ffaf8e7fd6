//! Figures as a table for people.

use comfy_table::{ContentArrangement, Table, presets};

/// A terminal narrower than this is none that a person reads tables on.
const WIDTH_MIN: u16 = 60;

/// A table of names and values, as wide as the terminal.
pub fn of(rows: impl IntoIterator<Item = (&'static str, String)>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    if table.width().is_some_and(|width| width >= WIDTH_MIN) {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    for (name, value) in rows {
        table.add_row([name.to_owned(), value]);
    }
    table
}
