//! Plants bugs, and says which test or case finds each. Started by `cargo xtask plant`, whose arguments it takes: names,
//! or none for a list, or `--all`; after `--known`, names that it only looks at.
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
    let mut names: Vec<String> = env::args().skip(1).collect();
    let is_question = names.first().is_some_and(|first| first == "--known");
    names.drain(..usize::from(is_question));
    if names.is_empty() && !is_question {
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
    if is_question {
        return ExitCode::SUCCESS;
    }
    let chosen: Vec<_> = BUGS.iter().filter(|bug| is_all || names.iter().any(|name| name == bug.name)).collect();
    if try_each(&chosen).await == chosen.len() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// How many were caught. They are told in the order of the list, whoever is found first.
async fn try_each(bugs: &[&'static Bug]) -> usize {
    let began = Instant::now();
    let (rules, others): (Vec<&Bug>, Vec<&Bug>) = bugs.iter().partition(|bug| bug.slips().is_empty());
    let try_some =
        |bugs: Vec<&'static Bug>, at_a_time| stream::iter(bugs).map(try_one).buffered(at_a_time).collect::<Vec<_>>();
    // Rules are built in one directory.
    let (of_rules, of_others) = tokio::join!(try_some(rules, 1), try_some(others, AT_A_TIME));
    let mut tried: Vec<_> = of_rules.into_iter().chain(of_others).collect();
    tried.sort_by_key(|(bug, _)| bugs.iter().position(|one| one.name == bug.name));
    for (bug, verdict) in &tried {
        tell(bug, verdict, bugs.len() == 1);
    }
    let caught = tried.iter().filter(|(_, verdict)| verdict.is_caught).count();
    println!("{caught} of {} are caught, in {:.0} s", bugs.len(), began.elapsed().as_secs_f64());
    caught
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
