//! The other load: rows of before are filled, by two backfills at once, whose worker comes by.
use super::{
    attack::{Attack, Outcome, stops_at_start},
    case::{Action, Case, Site},
    check::LEFT_OPEN,
    fleet::Fleet,
    history::History,
    listener::Listener,
};
use crate::{
    Options, System, eventually,
    eventually::eventually_within,
    evolving::{MIGRATING, MISCOUNTED, Operator},
};
use std::time::Duration;

/// Who fills. Sites of others are the auction's.
const HANDLERS: [&str; 2] = ["run_backfill_chunk", "run_online_step"];
const BIDS: i32 = 2_000;
/// It takes half a minute until one that was killed is no more counted among those who live; then another looks first how
/// long bids take.
const PATIENCE: Duration = Duration::from_mins(3);
/// The type of a column, and a count that must be right to one.
pub const CHANGES: [&str; 2] = ["27", "28"];
/// Whether this load comes by there.
pub fn comes_by(site: &str) -> bool {
    HANDLERS.iter().any(|handler| site.starts_with(&format!("{handler}.")))
}

/// Where somebody comes by who fills.
pub async fn discover() -> Vec<Site> {
    let outcome = conduct(&[]).await;
    outcome.sites.into_iter().filter(|site| comes_by(&site.name)).collect()
}

pub(super) async fn conduct(faults: &[Case]) -> Outcome {
    let small_disk = faults.iter().any(|fault| fault.action == Action::FullDisk);
    let system = System::with(Options { proxied: true, small_disk, durable: true }).await;
    if small_disk {
        system.spread_rows().await;
    }
    system.have_old_bids(BIDS).await;
    let (service, _api) = system.service().await;
    let operator = Operator::at(&system, &service).await;
    for change in CHANGES {
        operator.begin(change).await;
    }
    let socket = std::env::temp_dir().join(format!("{}.sock", system.name()));
    let listener = Listener::at(&socket, stops_at_start(faults));
    let fleet = Fleet::start(&system, socket, MIGRATING);
    let mut attack = Attack::new(listener, &system, &fleet);
    let load = async {
        let left = || async {
            if small_disk {
                resume(&system, &operator).await;
            }
            system.count("SELECT count(*) FROM backfills WHERE state <> 'done'").await
        };
        eventually_within(PATIENCE, "both backfills are done", left, |left| *left == 0).await;
        eventually("nothing is left open", || system.count(LEFT_OPEN), |open| *open == 0).await;
    };
    let stuck = attack.beside(faults, Box::pin(load)).await;
    let mut violations: Vec<_> = stuck.map(|why| format!("I7: {why}")).into_iter().collect();
    if violations.is_empty() {
        violations = wrong(&system).await;
    }
    violations.extend(fleet.ended().map(|name| format!("I7: {name} has ended by itself")));
    let outcome = attack.outcome(History::default(), violations);
    drop((service, fleet));
    if outcome.violations.is_empty() {
        system.leave().await;
    }
    outcome
}

/// Where the disk was full a backfill has paused itself: an operator has it go on.
async fn resume(system: &System, operator: &Operator<'_>) {
    for change in CHANGES {
        let paused = format!("SELECT count(*) FROM backfills WHERE change = {change} AND state = 'paused'");
        if system.count(&paused).await > 0 {
            // There may be no room yet: then it pauses itself once more.
            let _ = operator.backfill(&["resume", change, "--reason", "there is room again"]).await;
        }
    }
}

/// What must not be once every row is filled.
async fn wrong(system: &System) -> Vec<String> {
    let mut found = Vec::new();
    for (count, what) in [
        ("SELECT count(*) FROM bids WHERE max_amount_minor IS DISTINCT FROM amount_minor", "I1: a row is not filled"),
        (MISCOUNTED, "I4: items that were bid on are not counted once"),
        (
            "SELECT count(*) FROM backfills
             WHERE change = 28 AND rows_changed <> (SELECT count(*) FROM user_items WHERE is_counted)",
            "I5: a backfill does not count its rows once",
        ),
        (
            "SELECT count(*) FROM pg_constraint WHERE conrelid = 'bids'::regclass AND NOT convalidated",
            "I5: a constraint is not valid",
        ),
        ("SELECT count(*) FROM dead_jobs", "I5: a job is dead"),
    ] {
        if system.count(count).await > 0 {
            found.push(what.to_owned());
        }
    }
    found
}
