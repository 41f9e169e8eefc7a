//! Who makes the faults.
use super::{
    Plan,
    fleet::{Fleet, Member},
};
use crate::{System, answers::Protocol, proxy::Proxy};
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
/// A backend that is killed takes the server with it, which recovers from its log.
const CRASH: &str = "COPY (SELECT 1) TO PROGRAM 'kill -9 $PPID'";

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
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Kill, Self::Freeze, Self::Replace, Self::Cut, Self::Silence, Self::Deafen, Self::Terminate, Self::Crash];
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
        })
    }
}

/// Where faults are made, by several at a time.
pub struct Arena<'a> {
    system: &'a System,
    fleet: &'a Fleet<'a>,
    /// Whoever does something to a wire has it for himself: mended by another, it would go on with answers missing.
    wires: [AsyncMutex<(&'a Proxy, Protocol)>; 3],
}

impl<'a> Arena<'a> {
    /// Of these.
    pub fn new(system: &'a System, fleet: &'a Fleet<'a>) -> Self {
        Self { system, fleet, wires: system.wires().map(AsyncMutex::new) }
    }

    /// Makes faults one after another until the time is over, and heals each; says how many of each there were.
    pub async fn rage(&self, plan: Plan) -> BTreeMap<Fault, u32> {
        let (mut random, until, mut made) = (Rng::with_seed(plan.seed), Instant::now() + plan.lasts, BTreeMap::new());
        while Instant::now() < until {
            sleep(Duration::from_millis(random.u64(PAUSE_MS))).await;
            let fault = Fault::ALL[random.usize(..Fault::ALL.len())];
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
            Fault::Crash => {
                let crashed = sqlx::query(CRASH).execute(&self.system.db).await;
                return crashed.is_err_and(|error| matches!(error, sqlx::Error::Io(_) | sqlx::Error::Database(_)));
            }
        }
        true
    }
}

fn signal(id: u32, signal: &str) {
    let _ = Command::new("kill").args([signal, &id.to_string()]).output();
}
