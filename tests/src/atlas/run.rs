//! One case, from its first process to its verdict.
use super::{
    case::{Action, Case, Site},
    check,
    fleet::Fleet,
    history::History,
    listener::{Listener, Waiting},
    scenario::Clients,
};
use crate::{Options, System, answers::Protocol, broker::Broker, eventually, proxy::Proxy};
use futures_util::FutureExt;
use gavel_runtime::boundary::{Position, Reached, Server, Stop};
use std::{
    any::Any,
    collections::BTreeSet,
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

/// Everything is told to it.
const TAP: &str = "atlas.tap";
/// A server that says nothing for so long waits for something itself.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// Of all who ask the server at that moment, this one is answered by then.
const OTHERS: Duration = Duration::from_millis(100);

/// What came of a case.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Which process was there, and where; none where no process came by.
    pub reached: Option<(String, Reached)>,
    /// What clients did and were told.
    pub history: History,
    /// What does not hold.
    pub violations: Vec<String>,
    /// From the fault until it was quiet.
    pub recovered_within: Duration,
    /// Where processes came by.
    pub sites: BTreeSet<Site>,
    /// What the processes said.
    pub log: Vec<String>,
}

/// Runs without a fault, and says where processes come by.
pub async fn discover() -> Outcome {
    conduct(None).await
}

/// Runs a case.
pub async fn run(case: &Case) -> Outcome {
    conduct(Some(case)).await
}

async fn conduct(case: Option<&Case>) -> Outcome {
    let system = System::with(Options { proxied: true }).await;
    let broker = Broker::connect(&system.amqp_url).await;
    broker.tap(TAP).await;
    let socket = std::env::temp_dir().join(format!("{}.sock", system.name()));
    let mut listener = Listener::at(&socket, case.map(stop_of).into_iter().collect());
    let fleet = Fleet::start(&system, socket);
    let mut clients = Clients::new(&system, &fleet);
    let load = async {
        // Whoever waits in vain panics, with what was seen last.
        let ended = AssertUnwindSafe(async {
            clients.run().await;
            check::quiet(&system, &broker).await;
        });
        (ended.catch_unwind().await.err().map(|panic| text_of(&*panic)), Instant::now())
    };
    let (mut reached, mut acted_at) = (None, Instant::now());
    let acting = async {
        let Some(case) = case else { return std::future::pending().await };
        let waiting = listener.waiting().await;
        listener.forget_plan();
        acted_at = Instant::now();
        reached = Some(make(case.action, case.position, waiting, &system, &fleet).await);
        // The other process may have come by as well.
        loop {
            listener.waiting().await.go_on().await;
        }
    };
    let (stuck, quiet_at) = tokio::select! {
        ended = load => ended,
        () = acting => unreachable!("it goes on until the load has ended"),
    };
    let history = clients.history();
    let mut violations = if let Some(why) = stuck {
        vec![format!("I7: {why}")]
    } else {
        let told = broker.take_ids(TAP).await;
        check::violations(&system, &fleet.api().await, &history, &told).await
    };
    if let Some(name) = fleet.ended() {
        violations.push(format!("I7: {name} has ended by itself"));
    }
    let recovered_within = quiet_at.saturating_duration_since(acted_at);
    Outcome { reached, history, violations, recovered_within, sites: listener.sites(), log: fleet.log() }
}

/// Where a process is to stop for a case: for an answer to be lost it must not be there yet.
fn stop_of(case: &Case) -> Stop {
    let position = if case.action == Action::Reset { Position::Before } else { case.position };
    Stop { site: case.site.clone(), position, hit: case.hit }
}

/// Makes the fault, and heals it. Says in which process.
async fn make(
    action: Action,
    position: Position,
    waiting: Waiting,
    system: &System,
    fleet: &Fleet<'_>,
) -> (String, Reached) {
    let reached = waiting.reached.clone();
    let (wire, protocol) = wire(system, reached.server);
    let process = match (action, position) {
        (Action::Kill, _) => {
            let name = fleet.replace(reached.pid);
            drop(waiting);
            name
        }
        (Action::Reset, Position::Before) => {
            wire.cut();
            waiting.go_on().await;
            wire.mend();
            fleet.name_of(reached.pid)
        }
        (Action::Reset, Position::After) => {
            wire.deafen(protocol);
            waiting.go_on().await;
            // Where it does not, it is cut in the middle.
            let answered = eventually("the server answers", || async { wire.lost() }, |lost| *lost > 0);
            let _ = tokio::time::timeout(ANSWERS_WITHIN, answered).await;
            // That may have been another's, who was quicker.
            tokio::time::sleep(OTHERS).await;
            wire.cut();
            wire.mend();
            fleet.name_of(reached.pid)
        }
    };
    (process.to_owned(), reached)
}

/// What somebody who panicked has said.
pub fn text_of(panic: &(dyn Any + Send)) -> String {
    panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic".to_owned())
}

fn wire(system: &System, server: Server) -> (&Proxy, Protocol) {
    let [database, broker, cache] = system.wires();
    match server {
        Server::Database => database,
        Server::Broker => broker,
        Server::Cache => cache,
    }
}
