//! Bids over the public's way in, one after the other, each with what came of it: nobody may find that a version was
//! changed meanwhile.
use super::machine::THERE;
use crate::progress::run_quietly;
use anyhow::Context;
use serde_json::{Value, json};
use std::{
    fs,
    path::PathBuf,
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Between bids of one client.
const PAUSE: Duration = Duration::from_millis(20);
/// At least the largest step of the ladder.
const STEP_MINOR: usize = 10_000;

/// Reaches the VPS as anybody does.
#[derive(Clone)]
pub(super) struct Public {
    pub(super) host: String,
    /// Who vouches for its certificate.
    pub(super) authority: PathBuf,
}

impl Public {
    /// A call in JSON.
    pub(super) fn call(&self, method: &str, token: &str, request: &Value) -> anyhow::Result<Value> {
        let mut curl = self.curl(method);
        curl.args(["--fail-with-body", "--max-time", "30", "--header", "content-type: application/json"]);
        if !token.is_empty() {
            curl.args(["--header", &format!("authorization: Bearer {token}")]);
        }
        curl.args(["--data", &request.to_string()]);
        Ok(serde_json::from_str(&run_quietly(&mut curl)?)?)
    }

    /// What calls a method; what it is told is still to be said.
    pub(super) fn curl(&self, method: &str) -> Command {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--cacert"]).arg(&self.authority);
        curl.args(["--resolve", &format!("{}:443:{THERE}", self.host)]);
        curl.arg(format!("https://{}/api/gavel.v1.{method}", self.host));
        curl
    }

    /// The serial number of the certificate that it shows.
    pub(super) fn serial(&self) -> anyhow::Result<String> {
        let script =
            "openssl s_client -connect $0:443 -servername $1 < /dev/null 2> /dev/null | openssl x509 -noout -serial";
        run_quietly(Command::new("sh").args(["-c", script, THERE, &self.host]))
    }
}

/// What a client knows of a bid that was taken.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) bid_id: String,
    pub(super) at: Instant,
}

#[derive(Default)]
struct Told {
    taken: Vec<Taken>,
    failed: Vec<String>,
}

/// A client that goes on bidding.
pub(super) struct Load {
    stop: Arc<AtomicBool>,
    told: Arc<Mutex<Told>>,
    thread: thread::JoinHandle<()>,
}

impl Load {
    /// On that item, from that amount on.
    pub(super) fn start(public: &Public, tokens: [String; 2], item: &str, from: u64) -> Self {
        let (stop, told) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Told::default())));
        let thread = thread::spawn({
            let (public, item) = (public.clone(), item.to_owned());
            let (stop, told) = (stop.clone(), told.clone());
            move || {
                // Each outbids the other.
                for (amount, token) in (from..).step_by(STEP_MINOR).zip(tokens.iter().cycle()) {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let key = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
                    let (amount, key) = (amount.to_string(), key.trim());
                    let bid = json!({ "itemId": item, "maxAmountMinor": amount, "idempotencyKey": key });
                    let answer = public.call("BidService/PlaceBid", token, &bid);
                    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                    match answer.and_then(|answer| Ok(answer["bidId"].as_str().context("a bid")?.to_owned())) {
                        Ok(bid_id) => told.taken.push(Taken { bid_id, at: Instant::now() }),
                        Err(error) => told.failed.push(format!("{error:#}")),
                    }
                    drop(told);
                    thread::sleep(PAUSE);
                }
            }
        });
        Self { stop, told, thread }
    }

    /// What was taken until now.
    pub(super) fn taken(&self) -> Vec<Taken> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).taken.clone()
    }

    /// What was taken, and what failed.
    pub(super) fn end(self) -> (Vec<Taken>, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut told.taken), std::mem::take(&mut told.failed))
    }
}
