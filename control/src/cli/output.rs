//! Results on standard output. A reader that goes away (`| head`) ends the command quietly.

use std::io::{self, BufWriter, StdoutLock, Write};

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde::Serialize;

use super::failure::Failure;
use crate::format::Format;

/// Standard output in the format that was asked for.
pub(super) struct Out {
    format: Format,
    to: BufWriter<StdoutLock<'static>>,
}

impl Out {
    pub(super) fn new(format: Format) -> Self {
        Self { format, to: BufWriter::new(io::stdout().lock()) }
    }

    pub(super) const fn format(&self) -> Format {
        self.format
    }

    /// A value as JSON, or as the text that `text` makes of it.
    pub(super) fn value<T: Serialize>(
        &mut self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.json(value),
            Format::Table => self.line(text(value).trim_end()),
        }
    }

    /// A value as indented JSON, whatever the format.
    pub(super) fn json<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        serde_json::to_writer_pretty(&mut self.to, value)
            .map_err(io::Error::from)
            .and_then(|()| self.to.write_all(b"\n"))
            .map_err(Failure::writing)
    }

    /// A value as JSON on the present line.
    pub(super) fn compact<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        serde_json::to_writer(&mut self.to, value).map_err(|error| Failure::writing(error.into()))
    }

    pub(super) fn line(&mut self, text: &str) -> Result<(), Failure> {
        writeln!(self.to, "{text}").map_err(Failure::writing)
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.to.write_all(bytes).map_err(Failure::writing)
    }

    /// Until then nothing is sure to be written.
    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        self.to.flush().map_err(Failure::writing)
    }
}

/// A table without lines, as other network tools print them. Columns named in `numbers` are aligned to the right.
pub(super) fn table(head: &[&str], numbers: &[usize], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for &number in numbers {
        if let Some(column) = table.column_mut(number) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

/// A list in one cell.
pub(super) fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// A value that may be missing.
pub(super) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

/// A short time for people.
pub(super) fn nanoseconds(ns: u64) -> String {
    match ns {
        0..10_000 => format!("{ns} ns"),
        10_000..10_000_000 => format!("{} µs", ns / 1000),
        _ => format!("{} ms", ns / 1_000_000),
    }
}

/// Milliseconds for people.
pub(super) fn milliseconds(ms: Option<f64>) -> String {
    ms.map_or_else(|| "-".into(), |ms| format!("{ms:.1} ms"))
}
