//! The processes of a case: a service and a worker, and another of either where one was killed.
use super::check;
use crate::{Api, Process, System, broker::Broker, eventually};
use std::{
    path::PathBuf,
    sync::{Mutex, MutexGuard},
};

/// A service and a worker.
pub struct Fleet<'a> {
    system: &'a System,
    socket: PathBuf,
    worker_arguments: &'static [&'static str],
    service: Mutex<Process>,
    worker: Mutex<Process>,
    /// Those that were frozen, and go on beside the one that has their place.
    woken: Mutex<Vec<Process>>,
    /// What those said that were killed.
    said: Mutex<Vec<String>>,
}

impl<'a> Fleet<'a> {
    /// Starts both, which ask at the socket where they are to stop.
    pub fn start(system: &'a System, socket: PathBuf, worker_arguments: &'static [&'static str]) -> Self {
        let variables = variables(&socket);
        let service = Mutex::new(system.start_service(&borrowed(&variables)));
        let worker = Mutex::new(system.start_worker(worker_arguments, &borrowed(&variables)));
        Self { system, socket, worker_arguments, service, worker, woken: Mutex::default(), said: Mutex::default() }
    }

    /// A client of the service that runs now; waits until it listens.
    pub async fn api(&self) -> Api {
        let (address, ops_address) = self.addresses().await;
        Api::at(&address, &ops_address)
    }

    /// Where its operators call it.
    pub async fn ops_url(&self) -> String {
        format!("http://{}", self.addresses().await.1)
    }

    async fn addresses(&self) -> (String, String) {
        let listens = || async { locked(&self.service).addresses() };
        eventually("the service listens", listens, Option::is_some).await.expect("it listens")
    }

    /// Those of the processes that run now.
    pub fn ids(&self) -> [u32; 2] {
        [locked(&self.service).id(), locked(&self.worker).id()]
    }

    /// Which program has that id.
    pub fn name_of(&self, pid: u32) -> &'static str {
        if locked(&self.service).id() == pid { "bid-service" } else { "bid-worker" }
    }

    /// Kills the process of that id, and starts another in its place.
    pub fn replace(&self, pid: u32) {
        let mut killed = self.take(pid);
        killed.kill();
        self.said.lock().expect("nobody panics here").extend(killed.output());
    }

    /// Has the process of that id stand still, and starts another in its place. Gives it once that is ready.
    pub async fn freeze(&self, pid: u32) -> Process {
        let process = if self.name_of(pid) == "bid-service" { &self.service } else { &self.worker };
        let frozen = self.take(pid);
        frozen.signal("STOP");
        eventually("another has its place", || async { locked(process).is_ready() }, |ready| *ready).await;
        frozen
    }

    /// What an operator does where queues were deleted: what waited in them was told to nobody.
    pub async fn make_anew(&self, broker: &Broker) {
        check::told(self.system, broker).await;
        self.without_worker(self.system.rebuild_stats()).await;
        self.system.rebuild_read_model(async || self.ops_url().await).await;
        check::read_ended(self.system, &self.api().await).await;
    }

    /// Ends the worker as an operator does, has something done meanwhile, and starts another.
    pub async fn without_worker<T>(&self, meanwhile: impl Future<Output = T>) -> T {
        locked(&self.worker).terminate();
        eventually("the worker has ended", || async { locked(&self.worker).has_ended() }, |ended| *ended).await;
        let done = meanwhile.await;
        let variables = variables(&self.socket);
        *locked(&self.worker) = self.system.start_worker(self.worker_arguments, &borrowed(&variables));
        done
    }

    /// Lets it go on until the case is over.
    pub fn keep(&self, woken: Process) {
        self.woken.lock().expect("nobody panics here").push(woken);
    }

    /// The process of that id; another has its place.
    fn take(&self, pid: u32) -> Process {
        let variables = variables(&self.socket);
        if self.name_of(pid) == "bid-service" {
            std::mem::replace(&mut *locked(&self.service), self.system.start_service(&borrowed(&variables)))
        } else {
            std::mem::replace(
                &mut *locked(&self.worker),
                self.system.start_worker(self.worker_arguments, &borrowed(&variables)),
            )
        }
    }

    /// Everything that all of them have said.
    pub fn log(&self) -> Vec<String> {
        let mut all = self.said.lock().expect("nobody panics here").clone();
        all.extend(locked(&self.service).output());
        all.extend(locked(&self.worker).output());
        all.extend(self.woken.lock().expect("nobody panics here").iter().flat_map(Process::output));
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
