//! Somebody who watches an item over the public's way in: a stream ends when its service does, and is opened again with
//! what is known.
use super::load::Public;
use anyhow::{Context, ensure as must};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

/// Until a watcher has the last bid.
const KNOWN_WITHIN: Duration = Duration::from_secs(15);
/// A frame's flag, by Connect's protocol: nothing comes after it, and it says why.
const LAST: u8 = 2;

/// A client that goes on watching.
pub(super) struct Watcher {
    knows: Arc<AtomicI64>,
    stop: Arc<AtomicBool>,
    /// Of its curl.
    pid: Arc<AtomicU32>,
    thread: thread::JoinHandle<anyhow::Result<usize>>,
}

impl Watcher {
    pub(super) fn start(public: &Public, item: &str) -> Self {
        let (knows, stop, pid) = (Arc::default(), Arc::default(), Arc::default());
        let thread = thread::spawn({
            let (public, item) = (public.clone(), item.to_owned());
            let (knows, stop, pid) = (Arc::clone(&knows), Arc::clone(&stop), Arc::clone(&pid));
            move || watch(&public, &item, &knows, &stop, &pid)
        });
        Self { knows, stop, pid, thread }
    }

    /// Waits until it knows that version. Gives how many streams it took.
    pub(super) fn end(self, version: i64) -> anyhow::Result<usize> {
        let until = Instant::now() + KNOWN_WITHIN;
        while self.knows.load(SeqCst) < version && !self.thread.is_finished() && Instant::now() < until {
            thread::sleep(Duration::from_millis(50));
        }
        self.stop.store(true, SeqCst);
        let _ = Command::new("kill").arg(self.pid.load(SeqCst).to_string()).status();
        let streams = self.thread.join().map_err(|_| anyhow::anyhow!("a watcher panicked"))??;
        let knows = self.knows.load(SeqCst);
        must!(knows >= version, "a watcher knows version {knows} of {version}");
        Ok(streams)
    }
}

/// Until it is stopped. No stream may be cut, and no version comes after a higher one.
fn watch(public: &Public, item: &str, knows: &AtomicI64, stop: &AtomicBool, pid: &AtomicU32) -> anyhow::Result<usize> {
    for stream in 1.. {
        let request = json!({ "itemId": item, "knownVersion": knows.load(SeqCst).to_string() }).to_string();
        let mut curl = open(public, request.as_bytes())?;
        pid.store(curl.id(), SeqCst);
        let ended = frames(&mut curl, knows);
        if stop.load(SeqCst) {
            let _ = (curl.kill(), curl.wait());
            return Ok(stream);
        }
        let status = curl.wait()?;
        ended.with_context(|| format!("stream {stream}"))?;
        must!(status.success(), "stream {stream} was cut: curl ended with {status}");
        // As a client does that was told to come again.
        thread::sleep(Duration::from_millis(20));
    }
    unreachable!("it ends when it is stopped")
}

fn open(public: &Public, request: &[u8]) -> anyhow::Result<Child> {
    let mut curl = public.curl("ItemService/WatchItem");
    curl.args(["--no-buffer", "--header", "content-type: application/connect+json", "--data-binary", "@-"]);
    let mut curl = curl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut stdin = curl.stdin.take().context("piped")?;
    stdin.write_all(&[&[0], &u32::try_from(request.len())?.to_be_bytes()[..], request].concat())?;
    Ok(curl)
}

/// Reads until the frame that is the last.
fn frames(curl: &mut Child, knows: &AtomicI64) -> anyhow::Result<()> {
    let stdout = curl.stdout.as_mut().context("piped")?;
    loop {
        let mut head = [0; 5];
        stdout.read_exact(&mut head).context("it ended without saying so")?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let mut frame = vec![0; usize::try_from(length)?];
        stdout.read_exact(&mut frame).context("it ended in a frame")?;
        if head[0] & LAST != 0 {
            return Ok(());
        }
        let frame: Value = serde_json::from_slice(&frame)?;
        let changed = ["snapshot", "update"].iter().find_map(|kind| frame.get(kind));
        if let Some(version) = changed.and_then(|item| item["version"].as_str()) {
            let version = version.parse()?;
            let before = knows.swap(version, SeqCst);
            must!(version >= before, "version {version} came after {before}");
        }
    }
}
