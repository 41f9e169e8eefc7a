//! Tables for people, JSON for scripts.
use chrono::DateTime;
use prost_types::Timestamp;
use serde_json::{Value, json};

#[derive(Clone, Copy)]
pub(crate) struct Output {
    pub(crate) json: bool,
}

impl Output {
    /// One thing: its JSON, or its lines of name and value.
    pub(crate) fn record(self, json: &Value, lines: &[(&str, String)]) {
        if self.json {
            println!("{json:#}");
            return;
        }
        let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        for (name, value) in lines {
            println!("{name:<width$}  {value}");
        }
    }

    /// Many things of a kind.
    pub(crate) fn table(self, json: &Value, header: &[&str], rows: &[Vec<String>]) {
        if self.json {
            println!("{json:#}");
            return;
        }
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain([header[column].len()]).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..header.len()).map(width).collect();
        let line = |cells: Vec<&str>| {
            let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            println!("{}", padded.collect::<Vec<_>>().join("  ").trim_end());
        };
        line(header.to_vec());
        for row in rows {
            line(row.iter().map(String::as_str).collect());
        }
        if rows.is_empty() {
            println!("(none)");
        }
    }

    pub(crate) fn error(self, error: &anyhow::Error) {
        if self.json {
            eprintln!("{:#}", json!({ "error": format!("{error:#}") }));
        } else {
            eprintln!("bidctl: {error:#}");
        }
    }
}

/// Minor units as people write them. Every currency Gavel lists has two decimals.
pub(crate) fn money(minor: i64, currency: &str) -> String {
    format!("{}.{:02} {currency}", minor / 100, minor % 100)
}

/// RFC 3339, in UTC.
pub(crate) fn time(at: Option<&Timestamp>) -> String {
    let parsed = at.and_then(|at| DateTime::from_timestamp(at.seconds, u32::try_from(at.nanos).ok()?));
    parsed.map_or_else(|| "-".to_owned(), |at| at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}
