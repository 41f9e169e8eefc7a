//! Whoever the processes ask where they are to stop.
use super::case::Site;
use gavel_runtime::boundary::{Hello, Order, Plan, Reached, Stop};
use serde::Serialize;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::mpsc,
};

/// Listens until it is dropped.
pub struct Listener {
    /// Where.
    pub path: PathBuf,
    shared: Arc<Shared>,
    waiting: mpsc::UnboundedReceiver<Waiting>,
    /// Those that were not asked for yet.
    held: Vec<Waiting>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    plan: Mutex<Plan>,
    /// With the process, in the order in which each came by first.
    sites: Mutex<Vec<(u32, Site)>>,
    waiting: mpsc::UnboundedSender<Waiting>,
}

/// A process that waits where it was told to. Dropped, it goes on.
pub struct Waiting {
    /// Which, and where.
    pub reached: Reached,
    stream: UnixStream,
}

impl Waiting {
    /// Lets it go on.
    pub async fn go_on(mut self) {
        let _ = self.stream.write_all(&line(&Order::GoOn)).await;
    }
}

impl Listener {
    /// Tells every process that starts to stop at these.
    pub fn at(path: &Path, stops: Vec<Stop>) -> Self {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).expect("a socket");
        let (sender, waiting) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared { plan: Mutex::new(Plan { stops }), sites: Mutex::default(), waiting: sender });
        let task = tokio::spawn(accept(listener, shared.clone()));
        Self { path: path.to_owned(), shared, waiting, held: Vec::new(), task }
    }

    /// The next process that waits.
    async fn waiting(&mut self) -> Waiting {
        self.waiting.recv().await.expect("the listener lives as long as this")
    }

    /// The next process that waits there.
    pub async fn waiting_at(&mut self, stop: &Stop) -> Waiting {
        loop {
            if let Some(at) = self.held.iter().position(|waiting| waiting.reached.stop == *stop) {
                return self.held.remove(at);
            }
            let next = self.waiting().await;
            self.held.push(next);
        }
    }

    /// The next process that waits there, before any fault: whoever waits elsewhere goes on.
    pub async fn first_at(&mut self, stop: &Stop) -> Waiting {
        loop {
            let next = self.waiting().await;
            if next.reached.stop == *stop {
                return next;
            }
            next.go_on().await;
        }
    }

    /// Lets everybody go on who waits there: the other process may have come by as well.
    pub async fn let_others_go_on(&mut self, stop: &Stop) {
        loop {
            self.waiting_at(stop).await.go_on().await;
        }
    }

    /// Processes that start from here on stop there, or nowhere.
    pub fn plan(&self, stop: Option<Stop>) {
        *self.shared.plan.lock().expect("nobody panics here") = Plan { stops: stop.into_iter().collect() };
    }

    /// Where processes have come by, in the order of the first time.
    pub fn sites(&self) -> Vec<Site> {
        self.sites_where(|_| true)
    }

    /// Where others than these have.
    pub fn sites_of_others(&self, ids: &[u32]) -> Vec<Site> {
        self.sites_where(|id| !ids.contains(&id))
    }

    fn sites_where(&self, is_wanted: impl Fn(u32) -> bool) -> Vec<Site> {
        let all = self.shared.sites.lock().expect("nobody panics here");
        let mut sites = Vec::new();
        for (_, site) in all.iter().filter(|(id, _)| is_wanted(*id)) {
            if !sites.contains(site) {
                sites.push(site.clone());
            }
        }
        sites
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn accept(listener: UnixListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(converse(stream, shared.clone()));
    }
}

async fn converse(mut stream: UnixStream, shared: Arc<Shared>) {
    let mut text = String::new();
    if BufReader::new(&mut stream).read_line(&mut text).await.is_err() {
        return;
    }
    if let Ok(reached) = serde_json::from_str::<Reached>(&text) {
        let site = Site { name: reached.stop.site.clone(), server: reached.server };
        shared.sites.lock().expect("nobody panics here").push((reached.pid, site));
        if reached.waits {
            let _ = shared.waiting.send(Waiting { reached, stream });
        }
    } else if serde_json::from_str::<Hello>(&text).is_ok() {
        let plan = shared.plan.lock().expect("nobody panics here").clone();
        let _ = stream.write_all(&line(&plan)).await;
    }
}

fn line(message: &impl Serialize) -> Vec<u8> {
    let mut text = serde_json::to_vec(message).expect("it has a form in JSON");
    text.push(b'\n');
    text
}
