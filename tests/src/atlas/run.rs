//! One case, from its first process to its verdict.
use super::{
    attack::{Attack, Outcome, stops_at_start},
    case::{Action, Case, First},
    check, filling,
    fleet::Fleet,
    listener::Listener,
    operating,
    scenario::Clients,
    watcher::Watcher,
};
use crate::{Options, System, broker::Broker, servers::Servers};
use std::sync::atomic::Ordering::Relaxed;

/// Everything is told to it.
const TAP: &str = "atlas.tap";
/// Runs without a fault, and says where processes come by.
pub async fn discover() -> Outcome {
    conduct(None).await
}

/// Runs a case.
pub async fn run(case: &Case) -> Outcome {
    conduct(Some(case)).await
}

/// Makes a first fault and no second, and says where the process comes by that has the other's place.
pub async fn discover_after(first: &First) -> Outcome {
    conduct(Some(&Case::from(first))).await
}

async fn conduct(case: Option<&Case>) -> Outcome {
    let first = case.and_then(|case| case.first.as_ref()).map(Case::from);
    let faults: Vec<Case> = first.into_iter().chain(case.cloned()).collect();
    if case.is_some_and(|case| filling::comes_by(&case.site)) {
        return filling::conduct(&faults).await;
    }
    if case.is_some_and(|case| operating::comes_by(&case.site)) {
        return operating::conduct(&faults).await;
    }
    let does = |action| faults.iter().any(|fault| fault.action == action);
    let system = System::with(Options { proxied: true, small_disk: does(Action::FullDisk), durable: true }).await;
    if does(Action::FullDisk) {
        system.spread_rows().await;
    }
    Broker::connect(&system.amqp_url).await.tap(TAP).await;
    let socket = std::env::temp_dir().join(format!("{}.sock", system.name()));
    let listener = Listener::at(&socket, stops_at_start(&faults));
    let fleet = Fleet::start(&system, socket, &[]);
    let mut clients = Clients::new(&system, &fleet);
    let watcher = Watcher::new(&fleet, clients.watched());
    let mut attack = Attack::new(listener, &system, &fleet);
    let is_emptied = attack.is_cache_emptied();
    let load = async {
        clients.run().await;
        watcher.knows_the_newest(&system).await;
        let broker = Broker::once_it_is_there(&system.amqp_url).await;
        if does(Action::DeleteQueues) {
            fleet.make_anew(&broker).await;
        }
        if is_emptied.load(Relaxed) {
            check::read_behind(&system, &fleet.api().await).await;
        }
        check::quiet(&system, &broker).await;
    };
    let beside = async {
        tokio::select! {
            () = load => {}
            () = watcher.run() => unreachable!("they watch on and on"),
        }
    };
    let stuck = attack.beside(&faults, Box::pin(beside)).await;
    let history = clients.history();
    let mut of_broker = None;
    let mut violations = if let Some(why) = stuck {
        of_broker = Some(broker_says(&system).await);
        vec![format!("I7: {why}")]
    } else {
        let told = Broker::once_it_is_there(&system.amqp_url).await.take_ids(TAP).await;
        check::violations(&system, &fleet.api().await, &history, &told).await
    };
    violations.extend(watcher.wrong().into_iter().map(|wrong| format!("I4: {wrong}")));
    violations.extend(fleet.ended().map(|name| format!("I7: {name} has ended by itself")));
    let mut outcome = attack.outcome(history, violations);
    outcome.log.extend(of_broker);
    drop(fleet);
    if outcome.violations.is_empty() {
        system.leave().await;
    }
    outcome
}

/// Who is connected to the broker and consumes, and what waits.
async fn broker_says(system: &System) -> String {
    let api = Servers::of_this_run().rabbitmq_api;
    let mut said = String::new();
    for what in ["vhosts/{}/connections", "consumers/{}", "queues/{}"] {
        let url = format!("{api}/api/{}", what.replace("{}", system.name()));
        let answer = reqwest::get(url).await;
        if let Ok(answer) = answer {
            said += &answer.text().await.unwrap_or_default();
            said.push('\n');
        }
    }
    said
}
