//! Runs cases of the atlas on the servers of this run. Started by `cargo xtask atlas`, whose arguments it takes.
use futures_util::{FutureExt, StreamExt, stream};
use gavel_runtime::boundary::Position;
use gavel_tests::atlas::{
    Action, Case, Outcome,
    case::Site,
    discover,
    entry::{Entry, statement, story},
    page::page,
    run,
};
use std::{
    collections::BTreeSet,
    env, fs,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

/// What is kept of it.
const PAGE: &str = "docs/atlas.md";
/// Cases side by side: most of the time each waits.
const AT_A_TIME: usize = 4;
/// Of a case whose site nobody comes by.
const TRIES: u32 = 4;
/// Some sites belong to a minute's beginning: one in so many cases may find nobody there.
const FEW: usize = 10;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let asked = Asked { arguments: &arguments };
    let holds = if arguments.is_empty() {
        sites().await
    } else if asked.has("--all") {
        all(&asked).await
    } else {
        match asked.case() {
            Ok(case) => one(&case).await,
            Err(why) => {
                eprintln!("{why}");
                false
            }
        }
    };
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Asked<'a> {
    arguments: &'a [String],
}

impl Asked<'_> {
    fn has(&self, name: &str) -> bool {
        self.arguments.iter().any(|argument| argument == name)
    }

    fn value(&self, name: &str) -> Option<&str> {
        let at = self.arguments.iter().position(|argument| argument == name)?;
        self.arguments.get(at + 1).map(String::as_str)
    }

    fn case(&self) -> Result<Case, String> {
        let needed = |name: &str| self.value(name).ok_or_else(|| format!("{name} is missing"));
        Ok(Case {
            site: needed("--site")?.to_owned(),
            position: needed("--position")?.parse::<Position>()?,
            hit: self.value("--hit").unwrap_or("1").parse().map_err(|_| "--hit takes a number".to_owned())?,
            action: needed("--action")?.parse::<Action>()?,
        })
    }
}

async fn sites() -> bool {
    let outcome = discover().await;
    for site in &outcome.sites {
        println!("{:<9} {}", format!("{:?}", site.server).to_lowercase(), site.name);
    }
    println!("{} sites", outcome.sites.len());
    for what in &outcome.violations {
        println!("without a fault: {what}");
    }
    outcome.violations.is_empty()
}

async fn one(case: &Case) -> bool {
    let outcome = run(case).await;
    for (number, step) in story(&root(), case, &outcome).iter().enumerate() {
        println!("{}. {step}", number + 1);
    }
    keep(case, &outcome);
    outcome.reached.is_some() && outcome.violations.is_empty()
}

async fn all(asked: &Asked<'_>) -> bool {
    let (began, only) = (Instant::now(), asked.value("--only").unwrap_or_default());
    let at_a_time = asked.value("--at-a-time").and_then(|number| number.parse().ok()).unwrap_or(AT_A_TIME);
    let is_sample = asked.has("--sample");
    let sites: Vec<_> = discover().await.sites.into_iter().filter(|site| site.name.contains(only)).collect();
    let cases = sites.iter().flat_map(|site| {
        let cases: Vec<_> = if is_sample { site.one_case().into_iter().collect() } else { site.cases().collect() };
        cases.into_iter().map(|case| (case, site.server))
    });
    let mut running = stream::iter(cases)
        .map(|(case, server)| async move { (run_patiently(&case).await, case, server) })
        .buffer_unordered(at_a_time);
    let (mut entries, mut missed, mut quiet_after, mut met) = (Vec::new(), 0, Vec::new(), BTreeSet::new());
    while let Some((outcome, case, server)) = running.next().await {
        met.extend(outcome.sites.iter().cloned());
        if outcome.reached.is_none() && outcome.violations.is_empty() {
            println!("nobody came by: {case}");
            missed += 1;
            continue;
        }
        let verdict = if outcome.violations.is_empty() { "holds" } else { "FAILS" };
        println!("{verdict} {case} ({:.1} s)", outcome.recovered_within.as_secs_f64());
        if !outcome.violations.is_empty() {
            for what in &outcome.violations {
                println!("      {what}");
            }
            keep(&case, &outcome);
        }
        quiet_after.push(outcome.recovered_within);
        entries.push(Entry::of(&case, server, &outcome));
    }
    quiet_after.sort_unstable();
    let failed = entries.iter().filter(|entry| !entry.holds).count();
    let (median, worst) = (quiet_after.get(quiet_after.len() / 2), quiet_after.last());
    println!(
        "{} cases at {} sites in {:.0} s, {failed} failed, at {missed} nobody came by; quiet again after {:.1?}, at most {:.1?}",
        entries.len(),
        sites.len(),
        began.elapsed().as_secs_f64(),
        median.copied().unwrap_or_default(),
        worst.copied().unwrap_or_default(),
    );
    met.extend(sites.iter().cloned());
    if asked.has("--write") {
        fs::write(root().join(PAGE), page(&root(), &entries, &met)).expect("the page is written");
    }
    met.retain(|site| !sites.contains(site));
    for name in unknown(met.iter()) {
        println!("met in a case, and not in {PAGE}: {name}");
    }
    // Of what processes come by when nothing fails, every statement has its row; a slow machine may meet others.
    let unknown = unknown(sites.iter().filter(|site| statement(&root(), site).is_some()));
    for name in &unknown {
        println!("not in {PAGE}: {name}; cargo xtask atlas --all --write");
    }
    failed == 0 && unknown.is_empty() && missed * FEW < entries.len()
}

/// Some sites are come by when somebody is quicker than another, and a server may be too busy for a new case's accounts:
/// then once more.
async fn run_patiently(case: &Case) -> Outcome {
    for _ in 1..TRIES {
        match AssertUnwindSafe(run(case)).catch_unwind().await {
            Ok(outcome) if outcome.reached.is_some() || !outcome.violations.is_empty() => return outcome,
            _ => {}
        }
    }
    run(case).await
}

/// Places that the page does not have.
fn unknown<'s>(sites: impl Iterator<Item = &'s Site>) -> Vec<&'s str> {
    let text = fs::read_to_string(root().join(PAGE)).unwrap_or_default();
    let has = |site: &&Site| {
        let (handler, operation) = site.name.split_once('.').unwrap_or((&site.name, ""));
        let section = text.split("\n## ").find(|section| section.lines().next() == Some(handler));
        section.is_some_and(|section| section.contains(&format!("\n| {operation} |")))
    };
    sites.filter(|site| !has(site)).map(|site| site.name.as_str()).collect()
}

/// Leaves what a case said, for whoever looks into it.
fn keep(case: &Case, outcome: &Outcome) {
    let Case { site, position, hit, action } = case;
    let dir = root().join("target/atlas");
    let path = dir.join(format!("{site}-{position}-{hit}-{action}"));
    let text = format!("cargo xtask atlas {case}\n{:#?}\n{}\n", outcome.history, outcome.log.join("\n"));
    if let Err(error) = fs::create_dir_all(&dir).and_then(|()| fs::write(&path, text)) {
        eprintln!("{}: {error}", path.display());
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
