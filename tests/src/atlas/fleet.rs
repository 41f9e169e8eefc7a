//! The processes of a case: a service and a worker, and another of either where one was killed.
use crate::{Api, Process, System, eventually};
use std::{
    path::PathBuf,
    sync::{Mutex, MutexGuard},
};

/// A service and a worker.
pub struct Fleet<'a> {
    system: &'a System,
    socket: PathBuf,
    service: Mutex<Process>,
    worker: Mutex<Process>,
    /// What those said that were killed.
    said: Mutex<Vec<String>>,
}

impl<'a> Fleet<'a> {
    /// Starts both, which ask at the socket where they are to stop.
    pub fn start(system: &'a System, socket: PathBuf) -> Self {
        let variables = variables(&socket);
        let service = Mutex::new(system.start_service(&borrowed(&variables)));
        let worker = Mutex::new(system.start_worker(&[], &borrowed(&variables)));
        Self { system, socket, service, worker, said: Mutex::default() }
    }

    /// A client of the service that runs now; waits until it listens.
    pub async fn api(&self) -> Api {
        let listens = || async { locked(&self.service).addresses() };
        let addresses = eventually("the service listens", listens, Option::is_some).await;
        let (address, ops_address) = addresses.expect("it listens");
        Api::at(&address, &ops_address)
    }

    /// Which program has that id.
    pub fn name_of(&self, pid: u32) -> &'static str {
        if locked(&self.service).id() == pid { "bid-service" } else { "bid-worker" }
    }

    /// Kills the process of that id, and starts another in its place. Says which program it was.
    pub fn replace(&self, pid: u32) -> &'static str {
        let variables = variables(&self.socket);
        let name = self.name_of(pid);
        let process = if name == "bid-service" { &self.service } else { &self.worker };
        let mut process = locked(process);
        process.kill();
        self.said.lock().expect("nobody panics here").extend(process.output());
        *process = if name == "bid-service" {
            self.system.start_service(&borrowed(&variables))
        } else {
            self.system.start_worker(&[], &borrowed(&variables))
        };
        name
    }

    /// Everything that all of them have said.
    pub fn log(&self) -> Vec<String> {
        let mut all = self.said.lock().expect("nobody panics here").clone();
        all.extend(locked(&self.service).output());
        all.extend(locked(&self.worker).output());
        all
    }

    /// Returns whether one has ended by itself.
    pub fn ended(&self) -> Option<&'static str> {
        let named = [("bid-service", &self.service), ("bid-worker", &self.worker)];
        named.into_iter().find(|(_, process)| locked(process).has_ended()).map(|(name, _)| name)
    }
}

fn variables(socket: &std::path::Path) -> [(&'static str, String); 2] {
    [("GAVEL_BOUNDARY", socket.display().to_string()), ("GAVEL_LEASE_MS", "2000".to_owned())]
}

fn borrowed<'v>(variables: &'v [(&'static str, String); 2]) -> [(&'static str, &'v str); 2] {
    variables.each_ref().map(|(name, value)| (*name, value.as_str()))
}

fn locked(process: &Mutex<Process>) -> MutexGuard<'_, Process> {
    process.lock().expect("nobody panics here")
}
