//! Many cases, several side by side: which there are, what each came to, and what is kept of it.
use super::{
    attack::{Outcome, lacking, text_of},
    case::{Action, Case, First, Site},
    choose::{every_case, in_recovery, is_on_a_way, likelier, sample, sample_in_recovery},
    discover,
    entry::{Entry, keep},
    filling,
    kept::{Atlas, FILE, Met, Place},
    operating, run,
    source::statement,
    write,
};
use futures_util::{FutureExt, StreamExt, stream};
use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    panic::AssertUnwindSafe,
    path::Path,
    time::{Duration, Instant},
};

/// How soon it was quiet again.
const REPORT: &str = "target/bench/atlas.md";
/// Of a case whose site nobody comes by.
const TRIES: u32 = 4;
/// Of one in recovery, of which nobody may be in need.
const TRIES_IN_RECOVERY: u32 = 2;
/// What so many cases came to is kept, so that a run that was ended may go on.
const KEPT_EVERY: usize = 25;
/// So many cases see everything that there is to see.
const MANY: usize = 100;
/// Some sites belong to a minute's beginning: one in so many cases may find nobody there.
const FEW: usize = 10;

/// Which cases, and what is to be done with what they come to.
pub struct Many<'a> {
    /// Where the project is.
    pub root: &'a Path,
    /// Of each site one case, instead of all.
    pub sample: bool,
    /// Only those that have this in them as they are printed.
    pub only: &'a str,
    /// Keep what they come to.
    pub write: bool,
    /// Not those that are kept already.
    pub resume: bool,
    /// So many side by side: most of the time each waits.
    pub at_a_time: usize,
}

/// What they have come to so far.
struct All<'a> {
    asked: &'a Many<'a>,
    sites: Vec<Site>,
    met: Met,
    entries: Vec<Entry>,
    recovered: Recovered,
    /// Cases whose site nobody came by.
    missed: usize,
}

impl Many<'_> {
    /// Runs them; whether all hold.
    pub async fn run(&self) -> bool {
        let began = Instant::now();
        for (action, what) in Action::ALL.into_iter().filter_map(|action| Some((action, lacking(action)?))) {
            println!("without {action}: these servers lack {what}");
        }
        let mut all = All::begin(self).await;
        let cases = if self.sample { sample(&all.sites) } else { every_case(&all.sites).await };
        all.run(cases).await;
        // By now somebody has come by there as well where nobody does but in recovery.
        let later = if self.sample { sample_in_recovery(&kept(self.root)) } else { in_recovery(&all.sites, &all.met) };
        all.run(later).await;
        all.report(began.elapsed());
        if self.write {
            let atlas = all.atlas();
            atlas.write(self.root).and_then(|()| write(self.root, &atlas)).expect("the atlas is written");
        }
        all.holds()
    }
}

impl<'a> All<'a> {
    async fn begin(asked: &'a Many<'a>) -> Self {
        let mut sites = discover().await.sites;
        for site in filling::discover().await.into_iter().chain(operating::discover().await) {
            if !sites.contains(&site) {
                sites.push(site);
            }
        }
        let mut known = if asked.resume { kept(asked.root) } else { Atlas::default() };
        known.forget_gone(asked.root);
        // What failed is looked at again.
        known.cases.retain(Entry::holds);
        Self {
            asked,
            sites,
            met: known.sites.into_iter().map(|place| (place.site, place.after)).collect(),
            entries: known.cases,
            recovered: Recovered::default(),
            missed: 0,
        }
    }

    /// Those of these that are asked for, and that are not kept yet.
    async fn run(&mut self, mut cases: Vec<Case>) {
        let Many { root, only, write, at_a_time, .. } = *self.asked;
        cases.retain(|case| case.to_string().contains(only) && case.actions().all(|action| lacking(action).is_none()));
        cases.retain(|case| self.entries.iter().all(|entry| entry.case != *case));
        // What all feel who are on these servers comes last, and alone.
        let (mut alone, others): (Vec<_>, Vec<_>) = cases.into_iter().partition(Case::is_felt_by_all);
        alone.sort_by_key(|case| !is_on_a_way(case));
        let side_by_side = |cases, at_a_time| {
            stream::iter(cases)
                .map(|case| async move { (run_patiently(&case).await, case) })
                .buffer_unordered(at_a_time)
        };
        let mut running = side_by_side(others, at_a_time).chain(side_by_side(alone, 1));
        let mut done = 0;
        while let Some((outcome, case)) = running.next().await {
            self.note(&case, &outcome);
            done += 1;
            if write && done % KEPT_EVERY == 0 {
                self.atlas().write(root).expect("they are kept");
            }
        }
    }

    /// Where processes came by, and after which fault.
    fn meet(&mut self, case: &Case, outcome: &Outcome) {
        for site in &outcome.sites {
            self.met.entry(site.clone()).or_default();
        }
        // A later time, or a second fault, can't be asked for as the first of two.
        if !is_plain(case) || outcome.reached.is_none() {
            return;
        }
        let first = First::from(case);
        for site in outcome.recovering(case.action) {
            let after = self.met.entry(site.clone()).or_default();
            if after.as_ref().is_none_or(|known| likelier(site, &first) < likelier(site, known)) {
                *after = Some(first.clone());
            }
        }
    }

    fn note(&mut self, case: &Case, outcome: &Outcome) {
        self.meet(case, outcome);
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
            keep(self.asked.root, case, outcome);
        }
        self.recovered.note(case.action, outcome.recovered_within);
        self.entries.push(Entry::of(case, outcome));
    }

    fn atlas(&self) -> Atlas {
        Atlas::of(self.asked.root, &self.sites, &self.met, self.entries.clone())
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
        let path = self.asked.root.join(REPORT);
        let made = fs::create_dir_all(path.parent().expect("a directory")).and_then(|()| fs::write(path, report));
        made.expect("the report is written");
    }

    /// Whether every case holds, and every place is known.
    fn holds(&self) -> bool {
        let kept = kept(self.asked.root);
        for name in unknown(&kept, self.met.keys().filter(|site| !self.sites.contains(site))) {
            println!("met in a case, and not in {FILE}: {name}");
        }
        // Of what processes come by when nothing fails, every statement is known; a slow machine may meet others.
        let is_checked = |site: &&Site| statement(self.asked.root, site).is_some();
        let unknown = unknown(&kept, self.sites.iter().filter(is_checked));
        for name in &unknown {
            println!("not in {FILE}: {name}; cargo xtask atlas --all --write");
        }
        // Each case comes by all that nothing has to fail for: what none of many has come by, nobody does any more.
        let unmet = if self.entries.len() < MANY { Vec::new() } else { self.unmet(&kept) };
        for name in &unmet {
            println!("in {FILE}, and nobody comes by any more: {name}; cargo xtask atlas --all --write");
        }
        self.failed() == 0 && unknown.is_empty() && unmet.is_empty() && self.missed * FEW < self.entries.len()
    }

    /// Places that are kept as usual ones, and that no run has come by.
    fn unmet<'k>(&self, kept: &'k Atlas) -> Vec<&'k str> {
        let is_met = |place: &Place| self.sites.contains(&place.site) || self.met.contains_key(&place.site);
        let usual = kept.sites.iter().filter(|place| !place.in_recovery && place.checked);
        usual.filter(|place| !is_met(place)).map(|place| place.site.name.as_str()).collect()
    }
}

/// At its first time, with nothing before it.
fn is_plain(case: &Case) -> bool {
    case.hit == 1 && case.first.is_none()
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
    let tries = match case {
        Case { hit: 1, first: None, .. } => TRIES,
        Case { first: Some(_), .. } => TRIES_IN_RECOVERY,
        _ => 1,
    };
    for _ in 0..tries {
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
fn unknown<'s>(kept: &Atlas, sites: impl Iterator<Item = &'s Site>) -> Vec<&'s str> {
    let has = |site: &&Site| kept.sites.iter().any(|place| place.site == **site);
    sites.filter(|site| !has(site)).map(|site| site.name.as_str()).collect()
}

fn kept(root: &Path) -> Atlas {
    Atlas::read(root).unwrap_or_else(|error| panic!("{error:#}"))
}
