//! Whoever the processes ask where they are to stop.
use super::case::Site;
use gavel_runtime::boundary::{Hello, Order, Plan, Reached, Stop};
use serde::Serialize;
use std::{
    collections::BTreeSet,
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
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    plan: Mutex<Plan>,
    sites: Mutex<BTreeSet<Site>>,
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
    /// Tells every process that starts to stop there.
    pub fn at(path: &Path, stops: Vec<Stop>) -> Self {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).expect("a socket");
        let (sender, waiting) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared { plan: Mutex::new(Plan { stops }), sites: Mutex::default(), waiting: sender });
        let task = tokio::spawn(accept(listener, shared.clone()));
        Self { path: path.to_owned(), shared, waiting, task }
    }

    /// The next process that waits.
    pub async fn waiting(&mut self) -> Waiting {
        self.waiting.recv().await.expect("the listener lives as long as this")
    }

    /// Processes that start from here on stop nowhere.
    pub fn forget_plan(&self) {
        *self.shared.plan.lock().expect("nobody panics here") = Plan::default();
    }

    /// Where processes have come by.
    pub fn sites(&self) -> BTreeSet<Site> {
        self.shared.sites.lock().expect("nobody panics here").clone()
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
        shared.sites.lock().expect("nobody panics here").insert(site);
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
