//! Makes faults at random for a while, and says whether anything was lost. Started by `cargo xtask chaos`, with seconds and
//! a seed.
use gavel_tests::{
    atlas::check::acknowledged,
    chaos::{
        Plan,
        run::{Outcome, run},
    },
};
use std::{env, fs, path::Path, process::ExitCode, time::Duration};

#[tokio::main]
async fn main() -> ExitCode {
    let mut numbers = env::args().skip(1).map(|text| text.parse::<u64>());
    let (Some(Ok(seconds)), Some(Ok(seed))) = (numbers.next(), numbers.next()) else {
        eprintln!("seconds and a seed are asked for");
        return ExitCode::FAILURE;
    };
    let outcome = tokio::select! {
        outcome = run(Plan { lasts: Duration::from_secs(seconds), seed }) => outcome,
        // Its processes, also those that are frozen, end with it.
        _ = tokio::signal::ctrl_c() => return ExitCode::FAILURE,
    };
    let report = report(&outcome, seed);
    print!("{report}");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let kept = fs::create_dir_all(root.join("target/bench")).and_then(|()| {
        fs::write(root.join("target/bench/chaos.md"), &report)?;
        if outcome.violations.is_empty() {
            return Ok(());
        }
        let asked: Vec<_> = outcome.known.history.bids.iter().filter(|bid| !bid.unknown.is_empty()).collect();
        let text = format!("{}\n{asked:#?}\n{}\n", outcome.violations.join("\n"), outcome.log.join("\n"));
        fs::write(root.join("target/bench/chaos.log"), text)
    });
    if let Err(error) = kept {
        eprintln!("not kept: {error}");
    }
    if outcome.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn report(outcome: &Outcome, seed: u64) -> String {
    let bids = &outcome.known.history.bids;
    let taken = bids.iter().filter(|bid| acknowledged(bid).is_some()).count();
    let unknown = bids.iter().filter(|bid| !bid.unknown.is_empty()).count();
    let faults: Vec<_> = outcome.faults.iter().map(|(fault, count)| format!("{count} {fault}")).collect();
    let slowest = bids.iter().map(|bid| bid.took).max().unwrap_or_default();
    let mut lines = vec![
        format!("- seed {seed}: {} faults: {}", outcome.faults.values().sum::<u32>(), faults.join(", ")),
        format!(
            "- {} items, {} bids: {taken} taken, {} refused",
            outcome.known.history.items.len(),
            bids.len(),
            bids.len() - taken
        ),
        format!(
            "- {unknown} bidders did not know at first what had become of their bid, and asked again; the longest for {slowest:.1?}"
        ),
        format!(
            "- {} frames were seen by watchers, none of an earlier version than the one before",
            outcome.known.frames
        ),
        format!(
            "- for {:.1?} at most no bid was acknowledged; quiet {:.1?} after the last fault",
            outcome.known.longest_without, outcome.quiet_after
        ),
    ];
    match outcome.violations.len() {
        0 => lines.push("- nothing was lost, nothing is there twice, and everything that must hold does".to_owned()),
        count => {
            lines.push(format!("- {count} things do not hold:"));
            lines.extend(outcome.violations.iter().take(50).map(|what| format!("  - {what}")));
        }
    }
    lines.join("\n") + "\n"
}
