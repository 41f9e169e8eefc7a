//! Tables for people, JSON for scripts.
pub(crate) use gavel_rules::money;

use crate::bidctl::{
    refused::Refused,
    table::{self, harmless},
};
use chrono::DateTime;
use prost_types::Timestamp;
use serde_json::{Value, json};
use std::{
    fmt::Arguments,
    io::{self, IsTerminal, Write},
    process::exit,
};

/// `println!`, but for a reader that has read enough: then this is the end, and nothing is wrong.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::bidctl::output::line(format_args!($($text)*))
    };
}
pub(crate) use say;

pub(crate) fn line(text: Arguments<'_>) {
    if let Err(error) = writeln!(io::stdout(), "{text}") {
        exit(i32::from(error.kind() != io::ErrorKind::BrokenPipe));
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Output {
    pub(crate) json: bool,
    /// One line per JSON document.
    pub(crate) compact: bool,
}

impl Output {
    fn print(self, json: &Value) {
        if self.compact { say!("{json}") } else { say!("{json:#}") }
    }

    /// Whether somebody at a terminal sees how far a long command is: on standard error, beside what it prints.
    pub(crate) fn is_watched(self) -> bool {
        !self.json && io::stderr().is_terminal()
    }

    /// One thing: its JSON, or its lines of name and value.
    pub(crate) fn record(self, json: &Value, lines: &[(&str, String)]) {
        if self.json {
            self.print(json);
            return;
        }
        let width = lines.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
        for (name, value) in lines {
            let value: Vec<_> = value.split('\n').map(harmless).collect();
            say!("{name:<width$}  {}", value.join("\n"));
        }
    }

    /// Many things of a kind.
    pub(crate) fn table(self, json: &Value, header: &[&str], rows: &[Vec<String>]) {
        if self.json {
            self.print(json);
            return;
        }
        for line in table::lines(header, rows) {
            say!("{line}");
        }
        if rows.is_empty() {
            say!("(none)");
        }
    }

    /// Says that a list goes on, and how to see more of it.
    pub(crate) fn more(self, is_more: bool) {
        if is_more && !self.json {
            say!("(there is more: raise --limit)");
        }
    }

    pub(crate) fn error(self, error: &anyhow::Error) {
        if self.json {
            let code = error.downcast_ref::<Refused>().map(|refused| refused.code.as_str());
            eprintln!("{:#}", json!({ "error": told(error), "code": code }));
        } else {
            // What is wrong with the settings is a list.
            let text = told(error);
            eprintln!("bidctl: {}", text.lines().map(harmless).collect::<Vec<_>>().join("\n"));
        }
    }
}

/// An age as people say it.
pub(crate) fn age(ms: i64) -> String {
    let s = ms / 1_000;
    match s {
        ..1 => format!("{ms} ms"),
        1..60 => format!("{s}.{} s", ms % 1_000 / 100),
        60..3_600 => format!("{} m {} s", s / 60, s % 60),
        3_600..86_400 => format!("{} h {} m", s / 3_600, s % 3_600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// As [`time`]; none where there is none.
pub(crate) fn optional_time(at: Option<&Timestamp>) -> Option<String> {
    at.map(|at| time(Some(at)))
}

/// RFC 3339, in UTC.
pub(crate) fn time(at: Option<&Timestamp>) -> String {
    let parsed = at.and_then(|at| DateTime::from_timestamp(at.seconds, u32::try_from(at.nanos).ok()?));
    parsed.map_or_else(|| "-".to_owned(), |at| at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

/// An error and its causes, but for what was said already: libraries quote the cause in what they say themselves.
fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| match told.as_str() {
        "" => cause,
        said if said.contains(&cause) => told,
        said => format!("{said}: {cause}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_said_in_two_units_at_most() {
        assert_eq!(age(999), "999 ms");
        assert_eq!(age(1_250), "1.2 s");
        assert_eq!(age(61_000), "1 m 1 s");
        assert_eq!(age(2 * 3_600_000 + 5 * 60_000), "2 h 5 m");
        assert_eq!(age(25 * 3_600_000), "1 d 1 h");
    }

    #[test]
    fn a_cause_that_was_quoted_is_not_said_again() {
        let error = anyhow::anyhow!("permission denied").context("returned: permission denied").context("migrating");
        assert_eq!(told(&error), "migrating: returned: permission denied");
    }
}
