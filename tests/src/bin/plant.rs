//! Plants bugs, and says which test or case finds each. Started by `cargo xtask plant`, whose arguments it takes: names,
//! or none for a list, or `--all`.
use futures_util::{StreamExt, stream};
use gavel_tests::planted::{
    Bug,
    bugs::BUGS,
    trial::{Verdict, run, story},
};
use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};
use tokio::task::spawn_blocking;

/// Side by side: most of the time each waits.
const AT_A_TIME: usize = 4;

#[tokio::main]
async fn main() -> ExitCode {
    let names: Vec<String> = env::args().skip(1).collect();
    if names.is_empty() {
        for bug in BUGS {
            println!("{:<32} {}", bug.name, bug.forgotten);
        }
        return ExitCode::SUCCESS;
    }
    let is_all = names.iter().any(|name| name == "--all");
    let unknown: Vec<_> = names.iter().filter(|name| !is_all && BUGS.iter().all(|bug| bug.name != **name)).collect();
    if !unknown.is_empty() {
        let known: Vec<_> = BUGS.iter().map(|bug| bug.name).collect();
        eprintln!("no such bug: {unknown:?}; allowed: {}", known.join(", "));
        return ExitCode::FAILURE;
    }
    let chosen: Vec<_> = BUGS.iter().filter(|bug| is_all || names.iter().any(|name| name == bug.name)).collect();
    if try_each(&chosen).await == chosen.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How many were caught.
async fn try_each(bugs: &[&'static Bug]) -> usize {
    let began = Instant::now();
    let (rules, others): (Vec<&Bug>, Vec<&Bug>) = bugs.iter().partition(|bug| bug.slips().is_empty());
    let tell_all = bugs.len() == 1;
    let try_some = |bugs: Vec<&'static Bug>, at_a_time| {
        let trials = stream::iter(bugs).map(try_one).buffer_unordered(at_a_time);
        trials.fold(0, move |caught, (bug, verdict)| async move {
            tell(bug, &verdict, tell_all);
            caught + usize::from(verdict.is_caught)
        })
    };
    // Rules are built in one directory.
    let (of_rules, of_others) = tokio::join!(try_some(rules, 1), try_some(others, AT_A_TIME));
    println!("{} of {} are caught, in {:.0} s", of_rules + of_others, bugs.len(), began.elapsed().as_secs_f64());
    of_rules + of_others
}

fn tell(bug: &Bug, verdict: &Verdict, all: bool) {
    if all || !verdict.is_caught {
        println!("{}", story(bug, verdict).join("\n"));
    } else {
        println!("caught {:<32} {}", bug.name, bug.saying);
    }
}

async fn try_one(bug: &'static Bug) -> (&'static Bug, Verdict) {
    let tried = spawn_blocking(|| run(&root(), bug)).await.expect("it does not panic");
    let not_run = |error| Verdict { is_caught: false, said: vec![format!("it could not be run: {error:#}")] };
    (bug, tried.unwrap_or_else(not_run))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
