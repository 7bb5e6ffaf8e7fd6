//! Prints data on stdout: a table for people, or what the API said.

use crate::args::Format;
use crate::failure::Failure;
use anyhow::Context;
use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::{Write, stdout};

/// How this command prints.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Out {
    format: Format,
}

impl Out {
    /// Prints in `format`.
    pub(crate) fn new(format: Format) -> Out {
        Out { format }
    }

    /// Prints `data` as the format says; `table` is made only when a person reads.
    pub(crate) fn print<T: Serialize + ?Sized>(
        self,
        data: &T,
        table: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Table => line(table(data).trim_end()),
            Format::Json => line(&serde_json::to_string_pretty(data).context("write JSON")?),
            Format::Yaml => line(serde_saphyr::to_string(&data).context("write YAML")?.trim_end()),
        }
    }

    /// Prints `data` as one of many, on the way: a line of text, a line of JSON, or a YAML document.
    pub(crate) fn stream<T: Serialize>(self, data: &T, text: impl FnOnce(&T) -> String) -> Result<(), Failure> {
        match self.format {
            Format::Table => line(&text(data)),
            Format::Json => line(&serde_json::to_string(data).context("write JSON")?),
            Format::Yaml => line(&format!("---\n{}", serde_saphyr::to_string(data).context("write YAML")?.trim_end())),
        }
    }
}

/// One line on stdout. A closed stdout is an error of its own and never a panic.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let mut out = stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Failure::from)
}

/// Bytes on stdout, as they are.
pub(crate) fn raw(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(Failure::from)
}

/// A table without lines. Colours appear on terminals only, and not with NO_COLOR.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        table.force_no_tty();
    }
    if !header.is_empty() {
        table.set_header(header.iter().map(|title| Cell::new(*title)));
    }
    table
}

/// The text of a table, without the spaces at the ends of its lines and before its first column.
pub(crate) fn text(table: &Table) -> String {
    table.lines().map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned() + "\n").collect()
}

/// A state word in the colour that it has everywhere.
pub(crate) fn state(word: &str) -> Cell {
    let cell = Cell::new(word);
    match word {
        "running" | "held" | "active" | "up" | "succeeded" => cell.fg(Color::Green),
        "pending" | "leased" | "reclaiming" => cell.fg(Color::Yellow),
        "preempting" | "revoking" => cell.fg(Color::Magenta),
        "failed" | "quarantined" | "unhealthy" => cell.fg(Color::Red),
        "unknown" | "cancelled" | "ended" | "unreadable" => cell.fg(Color::DarkGrey),
        _ => cell,
    }
}
