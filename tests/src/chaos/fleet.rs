//! Services and workers that are killed, frozen and replaced.
use crate::{Api, Process, System, process::binary, proxy::Proxy, servers::Servers};
use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

/// Of each.
const SERVICES: usize = 2;
const WORKERS: usize = 2;
/// Short, so that who is frozen wakes up to find others in its place.
const LEASE_MS: &str = "2000";
/// A drain takes 20 s at most; who was frozen begins it when he wakes up. What is left after this long is killed.
const DRAINS_WITHIN: Duration = Duration::from_secs(35);
/// Of what each has said, so many lines are kept.
const KEPT: usize = 200;

/// All processes of a run.
pub struct Fleet<'a> {
    system: &'a System,
    /// Each one's own to the three servers, in front of those that all share.
    wires: Vec<[Proxy; 3]>,
    services: Vec<Mutex<Process>>,
    workers: Vec<Mutex<Process>>,
    /// What those said last that are gone.
    said: Mutex<Vec<String>>,
    /// Who ended and was not asked to, or not as they should.
    faults: Mutex<Vec<String>>,
    /// Where the last release's programs are, if every second process is one of them.
    last_release: Mutex<Option<PathBuf>>,
    /// Processes that were started so far.
    started: AtomicU32,
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member {
    /// A service.
    Service(usize),
    /// A worker.
    Worker(usize),
}

impl Member {
    /// All of them.
    pub fn all() -> Vec<Self> {
        (0..SERVICES).map(Self::Service).chain((0..WORKERS).map(Self::Worker)).collect()
    }

    /// Among all of them.
    fn place(self) -> usize {
        match self {
            Self::Service(n) => n,
            Self::Worker(n) => SERVICES + n,
        }
    }
}

impl<'a> Fleet<'a> {
    /// Starts all of them.
    pub async fn start(system: &'a System) -> Self {
        let mut wires = Vec::new();
        for _ in Member::all() {
            let [database, broker, cache] = system.wires().map(|(wire, _)| Proxy::to(wire.address.to_string()));
            wires.push([database.await, broker.await, cache.await]);
        }
        let last_release = Servers::of_this_run().last_release;
        let started = AtomicU32::new(0);
        let start = |member: Member| {
            let programs = next(last_release.as_deref(), &started);
            Mutex::new(begin(system, member, &wires[member.place()], programs))
        };
        Self {
            system,
            services: (0..SERVICES).map(|n| start(Member::Service(n))).collect(),
            workers: (0..WORKERS).map(|n| start(Member::Worker(n))).collect(),
            said: Mutex::default(),
            faults: Mutex::default(),
            wires,
            last_release: Mutex::new(last_release),
            started,
        }
    }

    /// From here on nobody is of the last release.
    pub async fn retire_last_release(&self) {
        let retired = self.last_release.lock().expect("nobody panics here").take();
        if retired.is_some() {
            for member in Member::all() {
                self.replace(member).await;
            }
        }
    }

    /// Each one's wires to the three servers.
    pub fn wires(&self) -> &[[Proxy; 3]] {
        &self.wires
    }

    /// A client of that service, if it listens by now.
    pub fn api(&self, nth: usize) -> Option<Api> {
        let (address, ops_address) = locked(&self.services[nth % SERVICES]).addresses()?;
        Some(Api::at(&address, &ops_address))
    }

    /// Kills it, as `kill -9` does, and starts another in its place.
    pub fn kill(&self, member: Member) {
        let mut process = locked(self.of(member));
        self.look(member, &process);
        process.kill();
        self.keep(&process);
        *process = self.begin(member);
    }

    /// Starts another, and asks this one to end: a deploy.
    pub async fn replace(&self, member: Member) {
        let next = self.begin(member);
        let mut former = std::mem::replace(&mut *locked(self.of(member)), next);
        self.look(member, &former);
        former.terminate();
        match tokio::time::timeout(DRAINS_WITHIN, former.ended()).await {
            Ok(status) if status.success() => {}
            Ok(status) => self.blame(format!("I7: {member:?} ended its drain with {status}")),
            Err(_) => self.blame(format!("I7: {member:?} did not end its drain within {DRAINS_WITHIN:?}")),
        }
        self.keep(&former);
    }

    /// Its process id.
    pub fn id(&self, member: Member) -> u32 {
        locked(self.of(member)).id()
    }

    /// What must not be: who ended and was not asked to, or not as they should.
    pub fn faults(&self) -> Vec<String> {
        for member in Member::all() {
            self.look(member, &locked(self.of(member)));
        }
        self.faults.lock().expect("nobody panics here").clone()
    }

    /// What all have said last.
    pub fn log(&self) -> Vec<String> {
        for member in Member::all() {
            self.keep(&locked(self.of(member)));
        }
        self.said.lock().expect("nobody panics here").clone()
    }

    fn begin(&self, member: Member) -> Process {
        let last_release = self.last_release.lock().expect("nobody panics here").clone();
        let programs = next(last_release.as_deref(), &self.started);
        begin(self.system, member, &self.wires[member.place()], programs)
    }

    fn look(&self, member: Member, process: &Process) {
        if process.has_ended() {
            let last = process.output().pop().unwrap_or_default();
            self.blame(format!("I7: {member:?} has ended by itself: {last}"));
        }
    }

    fn blame(&self, what: String) {
        self.faults.lock().expect("nobody panics here").push(what);
    }

    fn keep(&self, process: &Process) {
        let mut output = process.output();
        let last = output.split_off(output.len().saturating_sub(KEPT));
        self.said.lock().expect("nobody panics here").extend(last);
    }

    fn of(&self, member: Member) -> &Mutex<Process> {
        match member {
            Member::Service(n) => &self.services[n],
            Member::Worker(n) => &self.workers[n],
        }
    }
}

/// Starts it, with wires of its own: it can be cut off alone.
fn begin(system: &System, member: Member, wires: &[Proxy; 3], last_release: Option<&Path>) -> Process {
    let usual = match member {
        Member::Service(_) => system.service_variables(&[]),
        Member::Worker(_) => system.variables(&[]),
    };
    let mut own: Vec<(&str, String)> = vec![("GAVEL_LEASE_MS", LEASE_MS.to_owned())];
    for ((shared, _), wire) in system.wires().into_iter().zip(wires) {
        let (shared, wire) = (shared.address.to_string(), wire.address.to_string());
        let through = usual.iter().filter(|(_, value)| value.contains(&shared));
        own.extend(through.map(|(name, value)| (name.as_str(), value.replace(&shared, &wire))));
    }
    let own: Vec<_> = own.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let (name, variables) = match member {
        Member::Service(_) => ("bid-service", system.service_variables(&own)),
        Member::Worker(_) => ("bid-worker", system.variables(&own)),
    };
    let program = last_release.map_or_else(|| binary(name), |programs| programs.join(name));
    Process::start(&program, &[], &variables)
}

/// Where the next one's programs are: every second is of the last release, where there is to be one.
fn next<'p>(last_release: Option<&'p Path>, started: &AtomicU32) -> Option<&'p Path> {
    let number = started.fetch_add(1, Relaxed);
    last_release.filter(|_| number.is_multiple_of(2))
}

fn locked(process: &Mutex<Process>) -> MutexGuard<'_, Process> {
    process.lock().expect("nobody panics here")
}
