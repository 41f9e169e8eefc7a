//! What takes too long for every commit. Its last result is committed, with the revision that it is of.
use crate::{
    Arguments, Command,
    progress::{done_since, run_quietly},
};
use anyhow::{Context, bail};
use clap::{Args, Parser, ValueEnum};
use std::{
    fmt::Write,
    fs, process,
    sync::mpsc,
    time::{Duration, Instant},
};

/// Where its result is kept.
const RESULT: &str = "docs/nightly.md";
/// For the whole of it to end within a night.
const FUZZ_FOR_S: &str = "600";

/// One part of it.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Conformance,
    Image,
    K8s,
    Vps,
    Rehearsal,
    Fuzz,
    Atlas,
    Chaos,
    Jobs,
    Bids,
    Overload,
    Capacity,
    Relay,
    Stats,
    Edge,
    Backfill,
    Watch,
}

/// Everything that takes too long for every commit; writes docs/nightly.md.
#[derive(Args)]
pub(crate) struct Nightly {
    /// Only these parts: the others keep the result that they had
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
}

impl Part {
    /// The command that it is, with its own defaults.
    fn command(self) -> anyhow::Result<Command> {
        let name = self.name();
        let words = match self {
            Self::Conformance => vec!["conformance"],
            Self::Image => vec!["image"],
            Self::K8s => vec!["k8s"],
            Self::Vps => vec!["vps"],
            Self::Rehearsal => vec!["rehearse"],
            Self::Atlas => vec!["atlas", "--all", "--services", "processes"],
            Self::Chaos => vec!["chaos", "--services", "processes"],
            Self::Fuzz => vec!["fuzz", "--seconds", FUZZ_FOR_S],
            _ => vec!["bench", &name],
        };
        Ok(Arguments::try_parse_from([&["cargo xtask"], &words[..]].concat())?.command)
    }

    /// The part's own, which is the bench's where it is one, and that of the table that it leaves.
    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

impl Nightly {
    pub(crate) fn run(&self, interrupted: &mpsc::Receiver<()>) -> anyhow::Result<()> {
        let revision = revision()?;
        let path = crate::root().join(RESULT);
        let mut failed = Vec::new();
        for part in Part::value_variants().iter().filter(|part| self.only.is_empty() || self.only.contains(part)) {
            eprintln!("\n── {}", part.name());
            let began = Instant::now();
            let left = crate::root().join(format!("target/bench/{}.md", part.name()));
            // One of an earlier run would be taken for this one's.
            let _ = fs::remove_file(&left);
            done_since();
            let result = part.command().and_then(|command| crate::run(command, interrupted));
            if interrupted.try_recv().is_ok() {
                bail!("interrupted in {}; what had run before is in {RESULT}", part.name());
            }
            let minutes = began.elapsed().as_secs_f64() / 60.0;
            let steps = done_since();
            let table = fs::read_to_string(left).unwrap_or_else(|_| table_of(&steps));
            let outcome = match &result {
                Ok(()) => format!("ran to its end, {} goals missed", missed(&table)),
                Err(error) => format!("failed: {error:#}"),
            };
            let mut text = format!("\n## {}\n\n{outcome}, after {minutes:.1} min, on {revision}.\n", part.name());
            if !table.is_empty() {
                write!(text, "\n{}\n", table.trim())?;
            }
            if result.is_err() {
                failed.push(part.name());
            }
            // What is done is kept, whatever becomes of the rest; and so is what another run has written meanwhile.
            let before = fs::read_to_string(&path).unwrap_or_default();
            fs::write(&path, with_section(&before, *part, &text)).with_context(|| path.display().to_string())?;
        }
        if failed.is_empty() { Ok(()) } else { bail!("failed: {}; see {RESULT}", failed.join(", ")) }
    }
}

const OPENING: &str = "# What ran at night\n\nWritten by `cargo xtask nightly`.\n";

/// The revision of the checkout, as it would be found again: nothing may be changed that is not committed.
fn revision() -> anyhow::Result<String> {
    let git = |arguments: &[&str]| run_quietly(process::Command::new("git").args(arguments).current_dir(crate::root()));
    let changed = git(&["status", "--porcelain", "--untracked-files=no", "--", ".", &format!(":!{RESULT}")])?;
    if !changed.trim().is_empty() {
        bail!("commit first, so that the result has a revision: {}", changed.trim());
    }
    Ok(git(&["rev-parse", "--short=12", "HEAD"])?.trim().to_owned())
}

/// Of a part that leaves no figures of its own: what came of its steps.
fn table_of(steps: &[(String, Duration)]) -> String {
    let line = |(what, took): &(String, Duration)| format!("| {what} | {:.1} |\n", took.as_secs_f64());
    "| what came of it | s |\n| --- | --- |\n".to_owned() + &steps.iter().map(line).collect::<String>()
}

/// Lines of a bench's table that say so in their last column.
fn missed(table: &str) -> usize {
    table.lines().filter(|line| line.ends_with("| no |")).count()
}

/// All sections in their order, this part's with that text.
fn with_section(before: &str, part: Part, text: &str) -> String {
    let of = |other: &Part| if *other == part { text } else { section(before, &other.name()) }.to_owned();
    OPENING.to_owned() + &Part::value_variants().iter().map(of).collect::<String>()
}

/// A part's section as it was.
fn section<'a>(text: &'a str, name: &str) -> &'a str {
    let begin = format!("\n## {name}\n");
    let Some(from) = text.find(&begin) else { return "" };
    let until = text[from + 1..].find("\n## ").map_or(text.len(), |at| from + 1 + at);
    &text[from..until]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_section_is_replaced_and_the_others_stay_as_they_are() {
        let before =
            with_section(&with_section("", Part::Vps, "\n## vps\n\nold\n"), Part::Image, "\n## image\n\nold\n");
        let after = with_section(&before, Part::Vps, "\n## vps\n\nnew\n");
        assert_eq!(after, format!("{OPENING}\n## image\n\nold\n\n## vps\n\nnew\n"));
    }

    #[test]
    fn each_part_is_a_command_that_there_is() {
        for part in Part::value_variants() {
            if let Err(error) = part.command() {
                panic!("{}: {error}", part.name());
            }
        }
    }
}
