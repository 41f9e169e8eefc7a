//! Who makes the faults.
use super::{
    Plan,
    fleet::{Fleet, Member},
};
use crate::{
    System,
    answers::Protocol,
    atlas::{Action, attack::lacking},
    levers::{self, Lasting},
    proxy::Proxy,
};
use fastrand::Rng;
use std::{
    collections::BTreeMap,
    fmt,
    process::Command,
    time::{Duration, Instant},
};
use tokio::{sync::Mutex as AsyncMutex, time::sleep};

/// Between two faults, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 300..3_000;
/// How long a fault lasts that is healed, in milliseconds: some are longer than a lease or a deadline.
const LASTS_MS: std::ops::Range<u64> = 100..8_000;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A process is killed.
    Kill,
    /// A process stands still, and wakes up as if nothing had been.
    Freeze,
    /// A process is replaced, as by a deploy.
    Replace,
    /// Connections to a server are closed, and new ones refused.
    Cut,
    /// Nothing goes through to a server, and nobody is told.
    Silence,
    /// What is asked goes through, and the answers are lost.
    Deafen,
    /// The database ends the programs' sessions.
    Terminate,
    /// The database crashes.
    Crash,
    /// One process reaches one of the servers no more, and the others do.
    Partition,
    /// The broker is started again.
    RestartBroker,
    /// The broker takes nothing from publishers: its memory is full.
    Alarm,
    /// The database's disk is full.
    FullDisk,
    /// The database's disk is slow.
    SlowDisk,
    /// Commits are not answered, as where a disk hangs or a standby is gone.
    HangingCommits,
    /// Redis takes no writes.
    ReadOnly,
    /// Redis is started again, and holds nothing.
    EmptyCache,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Kill,
        Self::Freeze,
        Self::Replace,
        Self::Cut,
        Self::Silence,
        Self::Deafen,
        Self::Terminate,
        Self::Crash,
        Self::Partition,
        Self::RestartBroker,
        Self::Alarm,
        Self::FullDisk,
        Self::SlowDisk,
        Self::HangingCommits,
        Self::ReadOnly,
        Self::EmptyCache,
    ];

    /// Those that these servers can have.
    fn possible() -> Vec<Self> {
        let is_possible = |fault: &Self| match fault {
            Self::RestartBroker | Self::Alarm => lacking(Action::Alarm).is_none(),
            Self::FullDisk => lacking(Action::FullDisk).is_none(),
            Self::SlowDisk => levers::can_be_slow(),
            _ => true,
        };
        Self::ALL.into_iter().filter(is_possible).collect()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kills",
            Self::Freeze => "freezes",
            Self::Replace => "deploys",
            Self::Cut => "cut connections",
            Self::Silence => "silent connections",
            Self::Deafen => "lost answers",
            Self::Terminate => "ended sessions",
            Self::Crash => "crashes of the database",
            Self::Partition => "partitions",
            Self::RestartBroker => "restarts of the broker",
            Self::Alarm => "alarms of the broker",
            Self::FullDisk => "full disks",
            Self::SlowDisk => "slow disks",
            Self::HangingCommits => "times of hanging commits",
            Self::ReadOnly => "times of a read-only cache",
            Self::EmptyCache => "empty caches",
        })
    }
}

/// Where faults are made, by several at a time.
pub struct Arena<'a> {
    system: &'a System,
    fleet: &'a Fleet<'a>,
    /// Whoever does something to a wire has it for himself: mended by another, it would go on with answers missing.
    wires: [AsyncMutex<(&'a Proxy, Protocol)>; 3],
    /// Each process' own.
    own: Vec<AsyncMutex<&'a Proxy>>,
    /// Whoever does something to a whole server: one at a time.
    levers: AsyncMutex<()>,
}

impl<'a> Arena<'a> {
    /// Of these.
    pub fn new(system: &'a System, fleet: &'a Fleet<'a>) -> Self {
        let own = fleet.wires().iter().flatten().map(AsyncMutex::new).collect();
        Self { system, fleet, wires: system.wires().map(AsyncMutex::new), own, levers: AsyncMutex::default() }
    }

    /// Makes faults one after another until the time is over, and heals each; says how many of each there were.
    pub async fn rage(&self, plan: Plan) -> BTreeMap<Fault, u32> {
        let (mut random, until, mut made) = (Rng::with_seed(plan.seed), Instant::now() + plan.lasts, BTreeMap::new());
        let faults = Fault::possible();
        while Instant::now() < until {
            sleep(Duration::from_millis(random.u64(PAUSE_MS))).await;
            let fault = faults[random.usize(..faults.len())];
            if self.make(fault, &mut random).await {
                *made.entry(fault).or_default() += 1;
            }
        }
        made
    }

    /// Returns whether it was one.
    async fn make(&self, fault: Fault, random: &mut Rng) -> bool {
        let members = Member::all();
        let member = members[random.usize(..members.len())];
        let lasts = Duration::from_millis(random.u64(LASTS_MS));
        let wire = &self.wires[random.usize(..self.wires.len())];
        match fault {
            Fault::Kill => self.fleet.kill(member),
            Fault::Freeze => {
                // Whoever is in its place when it wakes up.
                let id = self.fleet.id(member);
                signal(id, "-STOP");
                sleep(lasts).await;
                signal(id, "-CONT");
            }
            Fault::Replace => self.fleet.replace(member).await,
            Fault::Cut | Fault::Silence | Fault::Deafen => {
                let held = wire.lock().await;
                let (wire, protocol) = *held;
                match fault {
                    Fault::Silence => wire.silence(),
                    Fault::Deafen => wire.deafen(protocol),
                    _ => wire.cut(),
                }
                sleep(lasts).await;
                if fault == Fault::Deafen {
                    wire.cut();
                }
                wire.mend();
            }
            // It may be down for the moment.
            Fault::Terminate => return self.system.end_sessions().await.is_ok_and(|ended| ended > 0),
            Fault::Partition => {
                let wire = self.own[random.usize(..self.own.len())].lock().await;
                let cut = if random.bool() { Proxy::silence } else { Proxy::cut };
                cut(*wire);
                sleep(lasts).await;
                wire.mend();
            }
            Fault::EmptyCache => self.empty_cache().await,
            Fault::Crash => self.whole(levers::crash_database).await,
            Fault::RestartBroker => self.whole(levers::restart_broker).await,
            Fault::Alarm => self.befall(levers::raise_alarm, lasts).await,
            Fault::FullDisk => self.befall(levers::fill_disk, lasts).await,
            Fault::SlowDisk => self.befall(levers::slow_disk, lasts).await,
            Fault::HangingCommits => self.befall(levers::hang_commits, lasts).await,
            Fault::ReadOnly => self.befall(levers::refuse_writes, lasts).await,
        }
        true
    }

    /// Does something to a whole server.
    async fn whole(&self, what: fn()) {
        let _one = self.levers.lock().await;
        levers::at_once(what).await;
    }

    /// The same, for a while.
    async fn befall(&self, begin: fn() -> Lasting, lasts: Duration) {
        let _one = self.levers.lock().await;
        levers::befall(begin, sleep(lasts)).await;
    }

    async fn empty_cache(&self) {
        let [.., cache] = &self.wires;
        let (wire, _one) = (cache.lock().await, self.levers.lock().await);
        levers::restart_cache(wire.0, self.system.name()).await;
    }
}

fn signal(id: u32, signal: &str) {
    let _ = Command::new("kill").args([signal, &id.to_string()]).output();
}
