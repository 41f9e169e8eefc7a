//! What takes too long for every commit. Its last result is committed, with the revision that it is of.
use crate::{
    bench::{Bench, What},
    conformance,
    fuzz::Fuzz,
    progress::run_quietly,
    rehearse::Rehearse,
};
use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use std::{collections::BTreeMap, fmt::Write, fs, process::Command, sync::mpsc, time::Instant};

/// Where its result is kept.
const RESULT: &str = "docs/nightly.md";
/// For the whole of it to end within a night.
const FUZZ_FOR_S: u32 = 600;

/// One part of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
enum Part {
    Conformance,
    Rehearsal,
    Fuzz,
    Jobs,
    Bids,
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
    fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Conformance => conformance::run(),
            Self::Rehearsal => Rehearse::whole().run(),
            Self::Fuzz => Fuzz::of(FUZZ_FOR_S).run(),
            Self::Jobs => Bench::of(What::jobs()).run(),
            Self::Bids => Bench::of(What::Bids { rounds: 3, only: None }).run(),
            Self::Relay => Bench::of(What::Relay { rounds: 3 }).run(),
            Self::Stats => Bench::of(What::Stats { rounds: 3 }).run(),
            Self::Edge => Bench::of(What::Edge { rounds: 3 }).run(),
            Self::Backfill => Bench::of(What::Backfill { rounds: 3 }).run(),
            Self::Watch => Bench::of(What::Watch { only: None }).run(),
        }
    }

    /// The file that it leaves, to be shown.
    const fn leaves(self) -> Option<&'static str> {
        match self {
            Self::Conformance => Some("conformance.md"),
            Self::Fuzz => None,
            Self::Rehearsal => Some("rehearsal.md"),
            Self::Jobs => Some("jobs.md"),
            Self::Bids => Some("bids.md"),
            Self::Relay => Some("relay.md"),
            Self::Stats => Some("stats.md"),
            Self::Edge => Some("edge.md"),
            Self::Backfill => Some("backfill.md"),
            Self::Watch => Some("watch.md"),
        }
    }

    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

impl Nightly {
    pub(crate) fn run(&self, interrupted: &mpsc::Receiver<()>) -> anyhow::Result<()> {
        let revision = revision()?;
        let path = crate::root().join(RESULT);
        let before = fs::read_to_string(&path).unwrap_or_default();
        let mut sections: BTreeMap<_, _> =
            Part::value_variants().iter().map(|part| (*part, section(&before, &part.name()).to_owned())).collect();
        let mut failed = Vec::new();
        for part in Part::value_variants().iter().filter(|part| self.only.is_empty() || self.only.contains(part)) {
            eprintln!("\n── {}", part.name());
            let began = Instant::now();
            let left = part.leaves().map(|file| crate::root().join("target/bench").join(file));
            // One of an earlier run would be taken for this one's.
            if let Some(left) = &left {
                let _ = fs::remove_file(left);
            }
            let result = part.run();
            if interrupted.try_recv().is_ok() {
                bail!("interrupted in {}; what had run before is in {RESULT}", part.name());
            }
            let minutes = began.elapsed().as_secs_f64() / 60.0;
            let table = left.and_then(|left| fs::read_to_string(left).ok()).unwrap_or_default();
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
            sections.insert(*part, text);
            // What is done is kept, whatever becomes of the rest.
            let all: String = sections.values().map(String::as_str).collect();
            fs::write(&path, OPENING.to_owned() + &all).with_context(|| path.display().to_string())?;
        }
        if failed.is_empty() { Ok(()) } else { bail!("failed: {}; see {RESULT}", failed.join(", ")) }
    }
}

const OPENING: &str = "# What ran at night\n\nWritten by `cargo xtask nightly`.\n";

/// The revision of the checkout, as it would be found again: nothing may be changed that is not committed.
fn revision() -> anyhow::Result<String> {
    let git = |arguments: &[&str]| run_quietly(Command::new("git").args(arguments).current_dir(crate::root()));
    let changed = git(&["status", "--porcelain", "--untracked-files=no", "--", ".", &format!(":!{RESULT}")])?;
    if !changed.trim().is_empty() {
        bail!("commit first, so that the result has a revision: {}", changed.trim());
    }
    Ok(git(&["rev-parse", "--short=12", "HEAD"])?.trim().to_owned())
}

/// Lines of a bench's table that say so in their last column.
fn missed(table: &str) -> usize {
    table.lines().filter(|line| line.ends_with("| no |")).count()
}

/// A part's section as it was.
fn section<'a>(text: &'a str, name: &str) -> &'a str {
    let begin = format!("\n## {name}\n");
    let Some(from) = text.find(&begin) else { return "" };
    let until = text[from + 1..].find("\n## ").map_or(text.len(), |at| from + 1 + at);
    &text[from..until]
}
