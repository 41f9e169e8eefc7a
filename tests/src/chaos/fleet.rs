//! Services and workers that are killed, frozen and replaced.
use crate::{Api, Process, System};
use std::{
    sync::{Mutex, MutexGuard},
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
    services: Vec<Mutex<Process>>,
    workers: Vec<Mutex<Process>>,
    /// What those said last that are gone.
    said: Mutex<Vec<String>>,
    /// Who ended and was not asked to, or not as they should.
    faults: Mutex<Vec<String>>,
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
}

impl<'a> Fleet<'a> {
    /// Starts all of them.
    pub fn start(system: &'a System) -> Self {
        let start = |member| Mutex::new(begin(system, member));
        Self {
            system,
            services: (0..SERVICES).map(|n| start(Member::Service(n))).collect(),
            workers: (0..WORKERS).map(|n| start(Member::Worker(n))).collect(),
            said: Mutex::default(),
            faults: Mutex::default(),
        }
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
        *process = begin(self.system, member);
    }

    /// Starts another, and asks this one to end: a deploy.
    pub async fn replace(&self, member: Member) {
        let next = begin(self.system, member);
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

fn begin(system: &System, member: Member) -> Process {
    let lease = ("GAVEL_LEASE_MS", LEASE_MS);
    match member {
        Member::Service(_) => system.start_service(&[lease]),
        Member::Worker(_) => system.start_worker(&[], &[lease]),
    }
}

fn locked(process: &Mutex<Process>) -> MutexGuard<'_, Process> {
    process.lock().expect("nobody panics here")
}
