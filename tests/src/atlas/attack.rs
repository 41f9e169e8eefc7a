//! Makes faults where processes wait, heals them, and says what came of it.
use super::{
    case::{Action, Case, Site},
    fleet::Fleet,
    history::History,
    listener::{Listener, Waiting},
};
use crate::{
    System, answers::Protocol, broker::Broker, eventually, levers, proxy::Proxy, servers::Servers,
    system::CONSUMER_QUEUES,
};
use futures_util::FutureExt;
use gavel_runtime::boundary::{Position, Reached, Server, Stop};
use std::{
    any::Any,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::time::sleep;

/// A queue may have been declared right before. RabbitMQ 3.10 that is told to delete one in the moment in which it begins
/// loses what serves the dead letters of all of them, until it is started again (`rabbit_fifo_dlx_sup`).
const BEGINS_WITHIN: Duration = Duration::from_secs(2);
/// A server that says nothing for so long waits for something itself.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// Longer than a call and a run of a handler may take.
const SILENT_FOR: Duration = Duration::from_secs(8);
/// So long a server takes that is started again.
const AWAY_FOR: Duration = Duration::from_secs(5);
/// Longer than the leases of a case's processes.
const FROZEN_FOR: Duration = Duration::from_secs(3);

/// Of all who ask the server at that moment, this one is answered by then.
const OTHERS: Duration = Duration::from_millis(100);

/// What came of a case.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Which process was there, and where; none where no process came by.
    pub reached: Option<(String, Reached)>,
    /// What clients did and were told.
    pub history: History,
    /// What does not hold.
    pub violations: Vec<String>,
    /// From the fault until it was quiet.
    pub recovered_within: Duration,
    /// Where processes came by, in the order of the first time.
    pub sites: Vec<Site>,
    /// Where those came by that were started in another's place.
    pub restarted: Vec<Site>,
    /// What the processes said.
    pub log: Vec<String>,
}

/// Whoever makes the faults.
pub(super) struct Attack<'a> {
    listener: Listener,
    system: &'a System,
    fleet: &'a Fleet<'a>,
    /// Where the last of them was made.
    reached: Option<(String, Reached)>,
    acted_at: Instant,
    recovered_within: Duration,
    /// True once Redis has come back without anything.
    cache_emptied: Arc<AtomicBool>,
    /// The processes before any fault.
    first_ids: [u32; 2],
}

impl Outcome {
    /// Where somebody came by who could be stopped there once that was done.
    pub fn recovering(&self, action: Action) -> &[Site] {
        if action.leaves_another() { &self.restarted } else { &self.sites }
    }
}

impl<'a> Attack<'a> {
    pub(super) fn new(listener: Listener, system: &'a System, fleet: &'a Fleet<'a>) -> Self {
        Self {
            listener,
            system,
            fleet,
            reached: None,
            acted_at: Instant::now(),
            recovered_within: Duration::ZERO,
            cache_emptied: Arc::default(),
            first_ids: fleet.ids(),
        }
    }

    /// True once Redis has come back without anything.
    pub(super) fn is_cache_emptied(&self) -> Arc<AtomicBool> {
        self.cache_emptied.clone()
    }

    pub(super) fn outcome(self, history: History, violations: Vec<String>) -> Outcome {
        let Self { listener, reached, recovered_within, fleet, first_ids, .. } = self;
        let (sites, restarted) = (listener.sites(), listener.sites_of_others(&first_ids));
        Outcome { reached, history, violations, recovered_within, sites, restarted, log: fleet.log() }
    }

    /// Has the load run to its end while the faults are made. Whoever waits in vain panics: then what was seen last.
    pub(super) async fn beside(&mut self, faults: &[Case], load: impl Future<Output = ()>) -> Option<String> {
        let stuck = tokio::select! {
            ended = AssertUnwindSafe(load).catch_unwind() => ended.err().map(|panic| text_of(&*panic)),
            () = self.make_all(faults) => unreachable!("it goes on until the load has ended"),
        };
        self.recovered_within = self.acted_at.elapsed();
        stuck
    }

    /// One after the other; then nobody waits any more.
    async fn make_all(&mut self, faults: &[Case]) {
        for (nth, fault) in faults.iter().enumerate() {
            let stop = stop_of(fault);
            let waiting = match nth {
                0 => self.listener.first_at(&stop).await,
                _ => self.listener.waiting_at(&stop).await,
            };
            self.listener.plan(faults.get(nth + 1).map(stop_of));
            self.acted_at = Instant::now();
            let made = tokio::select! {
                made = make(fault.action, fault.position, waiting, self.system, self.fleet) => made,
                () = self.listener.let_others_go_on(&stop) => unreachable!("they come and come"),
            };
            let emptied = fault.action == Action::Restart && made.1.server == Server::Cache;
            self.cache_emptied.fetch_or(emptied, Relaxed);
            if nth + 1 == faults.len() {
                self.reached = Some(made);
                self.listener.let_others_go_on(&stop).await;
            }
        }
        std::future::pending::<()>().await;
    }
}

/// Where processes stop that are there from the start: where the first fault leaves another process, only at that one.
pub(super) fn stops_at_start(faults: &[Case]) -> Vec<Stop> {
    let of_these = match faults {
        [first, ..] if first.action.leaves_another() => &faults[..1],
        _ => faults,
    };
    of_these.iter().map(stop_of).collect()
}

/// Where a process is to stop for a case: for an answer to be lost it must not be there yet.
pub(super) fn stop_of(case: &Case) -> Stop {
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
    let name = fleet.name_of(reached.pid);
    match action {
        Action::Kill => {
            fleet.replace(reached.pid);
            drop(waiting);
        }
        Action::Freeze => {
            let frozen = fleet.freeze(reached.pid).await;
            sleep(FROZEN_FOR).await;
            waiting.go_on().await;
            frozen.signal("CONT");
            fleet.keep(frozen);
        }
        Action::Terminate => {
            system.end_sessions().await.expect("they are ended");
            waiting.go_on().await;
        }
        Action::Restart => {
            // It begins first.
            tokio::join!(restart(reached.server, system), waiting.go_on());
        }
        Action::ReadOnly => levers::befall(levers::refuse_writes, into_it(waiting)).await,
        Action::Alarm => levers::befall(levers::raise_alarm, into_it(waiting)).await,
        Action::FullDisk => levers::befall(levers::fill_disk, into_it(waiting)).await,
        Action::DeleteQueues => {
            let broker = Broker::connect(&system.amqp_url).await;
            sleep(BEGINS_WITHIN).await;
            for queue in CONSUMER_QUEUES {
                broker.delete(queue).await;
            }
            waiting.go_on().await;
        }
        Action::Reset | Action::Silence | Action::Away => {
            let [database, broker, cache] = system.wires();
            let (wire, protocol) = match reached.server {
                Server::Database => database,
                Server::Broker => broker,
                Server::Cache => cache,
                Server::Client => panic!("{action} does nothing between a client and a service; allowed: kill, freeze"),
            };
            disturb(action, position, waiting, wire, protocol).await;
        }
    }
    (name.to_owned(), reached)
}

/// Makes a fault of the wire to a server, and heals it.
async fn disturb(action: Action, position: Position, waiting: Waiting, wire: &Proxy, protocol: Protocol) {
    match (action, position) {
        (Action::Silence, _) => {
            wire.silence();
            waiting.go_on().await;
            sleep(SILENT_FOR).await;
        }
        (Action::Away, _) => {
            wire.cut();
            waiting.go_on().await;
            sleep(AWAY_FOR).await;
        }
        (_, Position::Before) => {
            wire.cut();
            waiting.go_on().await;
        }
        (_, Position::After) => {
            wire.deafen(protocol);
            waiting.go_on().await;
            // Where it does not, it is cut in the middle.
            let answered = eventually("the server answers", || async { wire.lost() }, |lost| *lost > 0);
            let _ = tokio::time::timeout(ANSWERS_WITHIN, answered).await;
            // That may have been another's, who was quicker.
            sleep(OTHERS).await;
            wire.cut();
        }
    }
    wire.mend();
}

/// Into a fault that is there, and for a while.
async fn into_it(waiting: Waiting) {
    waiting.go_on().await;
    sleep(AWAY_FOR).await;
}

/// Stops and starts the server.
async fn restart(server: Server, system: &System) {
    match server {
        Server::Database => levers::at_once(levers::crash_database).await,
        Server::Broker => levers::at_once(levers::restart_broker).await,
        Server::Cache => {
            let [.., (wire, _)] = system.wires();
            levers::restart_cache(wire, system.name()).await;
        }
        Server::Client => unreachable!("nobody starts a client again"),
    }
}

/// What these servers lack for a fault, if anything.
pub fn lacking(action: Action) -> Option<&'static str> {
    let servers = Servers::of_this_run();
    match action {
        Action::FullDisk => {
            servers.small_disk.is_none().then_some("a disk that may be filled: root's, or in containers, they have one")
        }
        Action::Alarm | Action::Restart => {
            servers.rabbitmqctl.is_none().then_some("rabbitmqctl: servers that are started for the atlas have it")
        }
        _ => None,
    }
}

/// What somebody who panicked has said.
pub fn text_of(panic: &(dyn Any + Send)) -> String {
    panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic".to_owned())
}
