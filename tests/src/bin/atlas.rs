//! Runs cases of the atlas on the servers of this run. Started by `cargo xtask atlas`, whose arguments it takes.
use futures_util::{FutureExt, StreamExt, stream};
use gavel_runtime::boundary::{Position, Server};
use gavel_tests::atlas::{
    Action, Case, Outcome,
    attack::{lacking, text_of},
    case::{First, Site},
    discover, discover_after,
    entry::{Entry, story},
    filling,
    kept::{Atlas, FILE, Place},
    run,
    source::statement,
    write,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write,
    fs,
    panic::AssertUnwindSafe,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

/// Cases side by side: most of the time each waits.
const AT_A_TIME: usize = 4;
/// How soon it was quiet again.
const REPORT: &str = "target/bench/atlas.md";
/// Of a case whose site nobody comes by.
const TRIES: u32 = 4;
/// Handlers whose ways are looked at more closely: at later times, and in recovery.
const WAYS: [&str; 4] = ["place_bid", "relay_outbox", "apply_user_stats", "close_item"];
/// What they recover from.
const FIRSTS: [&str; 4] = [
    "place_bid.commit:after:kill",
    "relay_outbox.publish:after:kill",
    "apply_user_stats.commit:after:kill",
    "close_item.commit:before:kill",
];
/// What so many cases came to is kept, so that a run that was ended may go on.
const KEPT_EVERY: usize = 25;
/// Times that are looked at after the first.
const LATER: [u64; 3] = [2, 3, 4];
/// Where a sample has what everybody feels: each takes a while, and runs alone.
const SAMPLED: [&str; 3] = ["place_bid.commit", "relay_outbox.publish", "project_item.put"];
/// So many cases see everything that there is to see.
const MANY: usize = 100;
/// Some sites belong to a minute's beginning: one in so many cases may find nobody there.
const FEW: usize = 10;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let asked = Asked { arguments: &arguments };
    let holds = if arguments.is_empty() {
        list()
    } else if let Some(name) = asked.value("--knows") {
        knows(name)
    } else if asked.has("--all") {
        all(&asked).await
    } else if asked.has("--render") {
        write(&root(), &kept()).expect("the pages are written");
        true
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
            first: self.value("--first").map(str::parse).transpose()?,
        })
    }
}

/// What is kept: no server is needed for it.
fn list() -> bool {
    let kept = kept();
    for Place { site, .. } in &kept.sites {
        println!("{:<9} {}", format!("{:?}", site.server).to_lowercase(), site.name);
    }
    println!("{} sites", kept.sites.len());
    true
}

/// Whether there is such a site: in what is kept, or by a statement that is newer than that.
fn knows(name: &str) -> bool {
    let kept = kept();
    let site = Site { name: name.to_owned(), server: Server::Database };
    if kept.sites.iter().any(|place| place.site.name == name) || statement(&root(), &site).is_some() {
        return true;
    }
    let alike = kept.sites.iter().filter(|place| place.site.handler() == site.handler());
    let alike: Vec<_> = alike.map(|place| place.site.name.as_str()).collect();
    let known = if alike.is_empty() { "cargo xtask atlas lists them".to_owned() } else { alike.join(", ") };
    eprintln!("{name} is not in {FILE}, where `cargo xtask atlas --all --write` puts what is new; known: {known}");
    false
}

async fn one(case: &Case) -> bool {
    if let Some(what) = lacking(case.action) {
        eprintln!("{}: these servers lack {what}", case.action);
        return false;
    }
    let outcome = run(case).await;
    for (number, step) in story(&root(), case, &outcome).iter().enumerate() {
        println!("{}. {step}", number + 1);
    }
    keep(case, &outcome);
    outcome.reached.is_some() && outcome.violations.is_empty()
}

/// What many cases have come to so far.
struct All {
    sites: Vec<Site>,
    met: BTreeSet<Site>,
    entries: Vec<Entry>,
    recovered: Recovered,
    /// Cases whose site nobody came by.
    missed: usize,
}

async fn all(asked: &Asked<'_>) -> bool {
    let (began, only) = (Instant::now(), asked.value("--only").unwrap_or_default());
    let at_a_time = asked.value("--at-a-time").and_then(|number| number.parse().ok()).unwrap_or(AT_A_TIME);
    let sites: Vec<_> = discover().await.sites.into_iter().chain(filling::discover().await).collect();
    let mut cases = if asked.has("--sample") {
        let whole = sites.iter().filter(|site| SAMPLED.contains(&site.name.as_str())).flat_map(Site::cases);
        let whole = whole.filter(|case| case.action.is_felt_by_all());
        sites.iter().filter_map(Site::one_case).chain(whole).collect()
    } else {
        every_case(&sites).await
    };
    cases.retain(|case| case.to_string().contains(only));
    let mut known = if asked.has("--resume") { kept() } else { Atlas::default() };
    known.forget_gone(&root());
    // What failed is looked at again.
    known.cases.retain(Entry::holds);
    cases.retain(|case| known.cases.iter().all(|entry| entry.case != *case));
    for (action, what) in Action::ALL.into_iter().filter_map(|action| Some((action, lacking(action)?))) {
        println!("without {action}: these servers lack {what}");
        cases.retain(|case| case.action != action);
    }
    let mut all = All {
        sites,
        met: known.sites.iter().map(|place| place.site.clone()).collect(),
        entries: known.cases,
        recovered: Recovered::default(),
        missed: 0,
    };
    // What all feel who are on these servers comes last, and alone.
    let (mut alone, others): (Vec<_>, Vec<_>) = cases.into_iter().partition(|case| case.action.is_felt_by_all());
    alone.sort_by_key(|case| !WAYS.iter().any(|way| case.site.starts_with(&format!("{way}."))));
    let side_by_side = |cases, at_a_time| {
        stream::iter(cases).map(|case| async move { (run_patiently(&case).await, case) }).buffer_unordered(at_a_time)
    };
    let mut running = side_by_side(others, at_a_time).chain(side_by_side(alone, 1));
    let mut done = 0;
    while let Some((outcome, case)) = running.next().await {
        all.note(&case, &outcome);
        done += 1;
        if asked.has("--write") && done % KEPT_EVERY == 0 {
            all.atlas().write(&root()).expect("they are kept");
        }
    }
    all.report(began.elapsed());
    if asked.has("--write") {
        let atlas = all.atlas();
        atlas.write(&root()).and_then(|()| write(&root(), &atlas)).expect("the atlas is written");
    }
    all.holds()
}

/// Every case there is: those that tell most come first.
async fn every_case(sites: &[Site]) -> Vec<Case> {
    let mut cases: Vec<_> = sites.iter().flat_map(Site::cases).collect();
    cases.sort_by_key(|case| ![Action::Kill, Action::Reset].contains(&case.action));
    cases.extend(closer(sites).await);
    cases
}

impl All {
    fn note(&mut self, case: &Case, outcome: &Outcome) {
        self.met.extend(outcome.sites.iter().cloned());
        if outcome.reached.is_none() && outcome.violations.is_empty() {
            println!("nobody came by: {case}");
            // There need not be a second time, nor anything of it in a recovery.
            self.missed += usize::from(is_plain(case));
            return;
        }
        let verdict = if outcome.violations.is_empty() { "holds" } else { "FAILS" };
        println!("{verdict} {case} ({:.1} s)", outcome.recovered_within.as_secs_f64());
        if !outcome.violations.is_empty() {
            for what in &outcome.violations {
                println!("      {what}");
            }
            keep(case, outcome);
        }
        self.recovered.note(case.action, outcome.recovered_within);
        self.entries.push(Entry::of(case, outcome));
    }

    fn atlas(&self) -> Atlas {
        Atlas::of(&root(), &self.sites, self.met.iter().cloned(), self.entries.clone())
    }

    fn failed(&self) -> usize {
        self.entries.iter().filter(|entry| !entry.holds()).count()
    }

    fn report(&self, took: Duration) {
        let report = self.recovered.table();
        println!(
            "{report}\n{} cases at {} sites in {:.0} s, {} failed, at {} nobody came by",
            self.entries.len(),
            self.sites.len(),
            took.as_secs_f64(),
            self.failed(),
            self.missed,
        );
        let kept =
            fs::create_dir_all(root().join("target/bench")).and_then(|()| fs::write(root().join(REPORT), report));
        kept.expect("the report is written");
    }

    /// Whether every case holds, and every place is known.
    fn holds(&self) -> bool {
        for name in unknown(self.met.iter().filter(|site| !self.sites.contains(site))) {
            println!("met in a case, and not in {FILE}: {name}");
        }
        // Of what processes come by when nothing fails, every statement is known; a slow machine may meet others.
        let unknown = unknown(self.sites.iter().filter(|site| statement(&root(), site).is_some()));
        for name in &unknown {
            println!("not in {FILE}: {name}; cargo xtask atlas --all --write");
        }
        // Each case comes by all that nothing has to fail for: what none of many has come by, nobody does any more.
        let unmet = if self.entries.len() < MANY { Vec::new() } else { self.unmet() };
        for name in &unmet {
            println!("in {FILE}, and nobody comes by any more: {name}; cargo xtask atlas --all --write");
        }
        self.failed() == 0 && unknown.is_empty() && unmet.is_empty() && self.missed * FEW < self.entries.len()
    }

    /// Places that are kept as usual ones, and that no run has come by.
    fn unmet(&self) -> Vec<String> {
        let is_met = |place: &Place| self.sites.contains(&place.site) || self.met.contains(&place.site);
        let usual = kept().sites.into_iter().filter(|place| !place.in_recovery && place.checked);
        usual.filter(|place| !is_met(place)).map(|place| place.site.name).collect()
    }
}

/// At its first time, with nothing before it.
fn is_plain(case: &Case) -> bool {
    case.hit == 1 && case.first.is_none()
}

/// Cases on the ways that matter most: at later times, and in recovery from another fault.
async fn closer(sites: &[Site]) -> Vec<Case> {
    let on_ways = sites.iter().filter(|site| WAYS.contains(&site.handler()));
    let mut cases: Vec<_> =
        on_ways.flat_map(|site| LATER.into_iter().flat_map(|hit| site.further(hit, None))).collect();
    for first in FIRSTS {
        let first: First = first.parse().expect("one of the table");
        let of = |site: &Site| first.site.starts_with(&format!("{}.", site.handler()));
        let met = discover_after(&first).await.restarted;
        cases.extend(met.iter().filter(|site| of(site)).flat_map(|site| site.further(1, Some(&first))));
    }
    cases
}

fn kept() -> Atlas {
    Atlas::read(&root()).unwrap_or_else(|error| panic!("{error:#}"))
}

/// How long it took, after each kind of fault, until everything was told, counted and shown.
#[derive(Default)]
struct Recovered(BTreeMap<Action, Vec<Duration>>);

impl Recovered {
    fn note(&mut self, action: Action, within: Duration) {
        self.0.entry(action).or_default().push(within);
    }

    fn table(&self) -> String {
        let mut text = "| fault | cases | quiet again after, p50 | at most |\n| --- | --- | --- | --- |\n".to_owned();
        for (action, took) in &self.0 {
            let mut took = took.clone();
            took.sort_unstable();
            let [median, most] = [took.get(took.len() / 2), took.last()].map(|one| one.copied().unwrap_or_default());
            let _ = writeln!(text, "| {action} | {} | {median:.1?} | {most:.1?} |", took.len());
        }
        text
    }
}

/// Some sites are come by when somebody is quicker than another, and a server may be too busy for a new case's accounts:
/// then once more.
async fn run_patiently(case: &Case) -> Outcome {
    let mut last = Outcome::default();
    for _ in 0..if is_plain(case) { TRIES } else { 1 } {
        last = match AssertUnwindSafe(run(case)).catch_unwind().await {
            Ok(outcome) if outcome.reached.is_some() || !outcome.violations.is_empty() => return outcome,
            Ok(outcome) => outcome,
            // The others go on.
            Err(panic) => {
                Outcome { violations: vec![format!("it could not be run: {}", text_of(&*panic))], ..Outcome::default() }
            }
        };
    }
    last
}

/// Places that are not kept.
fn unknown<'s>(sites: impl Iterator<Item = &'s Site>) -> Vec<&'s str> {
    let kept = kept();
    let has = |site: &&Site| kept.sites.iter().any(|place| place.site == **site);
    sites.filter(|site| !has(site)).map(|site| site.name.as_str()).collect()
}

/// Leaves what a case said, for whoever looks into it.
fn keep(case: &Case, outcome: &Outcome) {
    let Case { site, position, hit, action, first } = case;
    let dir = root().join("target/atlas");
    let first = first.as_ref().map(|first| format!("{first}-")).unwrap_or_default();
    let path = dir.join(format!("{first}{site}-{position}-{hit}-{action}"));
    let text = format!("cargo xtask atlas {case}\n{:#?}\n{}\n", outcome.history, outcome.log.join("\n"));
    if let Err(error) = fs::create_dir_all(&dir).and_then(|()| fs::write(&path, text)) {
        eprintln!("{}: {error}", path.display());
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
