//! Load on a service: closed (each client waits for its answer) or open (so many bids a second, whoever waits).
use super::{
    client::{Answer, Client},
    service::{Releases, processor_seconds},
};
use anyhow::{Context, ensure};
use futures_util::{StreamExt, future::try_join_all, stream::FuturesUnordered};
use std::{
    cell::RefCell,
    fs,
    panic::resume_unwind,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};
use tokio::runtime;

/// The price at which each item starts, in minor units: from here on the ladder's step stays the same.
pub(crate) const START_MINOR: i64 = 1_000_000;
/// The ladder's step there.
pub(crate) const STEP_MINOR: i64 = 10_000;

/// An open load looks so often what is due.
const TICK: Duration = Duration::from_millis(5);

/// The items that are bid on, each with the amount of its next bid.
pub(crate) struct Lots {
    next_minor: Vec<AtomicI64>,
    turn: AtomicUsize,
}

impl Lots {
    pub(crate) fn new(items: u32) -> Arc<Self> {
        let next_minor = (0..items).map(|_| AtomicI64::new(START_MINOR)).collect();
        Arc::new(Self { next_minor, turn: AtomicUsize::new(0) })
    }

    /// An item, all of them in turn but far apart, and an amount above that of all earlier bids on it.
    pub(crate) fn next(&self) -> (String, i64) {
        let turn = self.turn.fetch_add(7_919, Ordering::Relaxed) % self.next_minor.len();
        (item_id(turn + 1), self.next_minor[turn].fetch_add(STEP_MINOR, Ordering::Relaxed))
    }
}

/// The id of the n-th item.
pub(crate) fn item_id(n: usize) -> String {
    format!("00000000-0000-4000-8000-{n:012x}")
}

/// What was counted, within the time that counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) accepted: u32,
    pub(crate) refused: u32,
    pub(crate) rejected: u32,
    /// Of accepted and refused bids, in ms, sorted.
    pub(crate) decided_ms: Vec<f64>,
    /// Of those rejected.
    pub(crate) rejected_ms: Vec<f64>,
    /// How late an open load itself was, in ms, sorted: it shares the processors with what it is put on.
    pub(crate) late_ms: Vec<f64>,
    seconds: f64,
    /// The processors' time that the load itself took, in seconds.
    generator_s: f64,
}

impl Tally {
    fn add(&mut self, answer: Answer, took: Duration) {
        let took_ms = took.as_secs_f64() * 1_000.0;
        match answer {
            Answer::Accepted => self.accepted += 1,
            Answer::Refused => self.refused += 1,
            Answer::TurnedAway => {
                self.rejected += 1;
                self.rejected_ms.push(took_ms);
                return;
            }
        }
        self.decided_ms.push(took_ms);
    }

    fn sum(tallies: Vec<Self>, time: Duration, generator_s: f64) -> Self {
        let mut sum = Self { seconds: time.as_secs_f64(), generator_s, ..Self::default() };
        for tally in tallies {
            sum.accepted += tally.accepted;
            sum.refused += tally.refused;
            sum.rejected += tally.rejected;
            sum.decided_ms.extend(tally.decided_ms);
            sum.rejected_ms.extend(tally.rejected_ms);
            sum.late_ms.extend(tally.late_ms);
        }
        sum.decided_ms.sort_by(f64::total_cmp);
        sum.rejected_ms.sort_by(f64::total_cmp);
        sum.late_ms.sort_by(f64::total_cmp);
        sum
    }

    pub(crate) fn accepted_per_second(&self) -> f64 {
        f64::from(self.accepted) / self.seconds
    }

    /// Of each second, that of the processors which the load left to what it is put on.
    pub(crate) fn processors_left(&self) -> f64 {
        let processors =
            thread::available_parallelism().map_or(1.0, |n| f64::from(u32::try_from(n.get()).unwrap_or(1)));
        processors - self.generator_s / self.seconds
    }

    pub(crate) fn decided_per_second(&self) -> f64 {
        f64::from(self.accepted + self.refused) / self.seconds
    }
}

/// A figure so far up in a sorted list.
pub(crate) fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// So many connections, each of a bidder of its own.
pub(crate) async fn connect(releases: &Releases, address: &str, clients: usize) -> anyhow::Result<Vec<Client>> {
    let mut connected = Vec::with_capacity(clients);
    for n in 0..clients {
        connected.push(Client::connect(address, &releases.token(&format!("bidder-{n}"))?).await?);
    }
    Ok(connected)
}

/// Each client bids, waits for the answer and bids again. What happens during `warm_up` does not count.
pub(crate) async fn closed(
    clients: Vec<Client>,
    lots: &Arc<Lots>,
    warm_up: Duration,
    time: Duration,
) -> anyhow::Result<Tally> {
    let (from, until) = (Instant::now() + warm_up, Instant::now() + warm_up + time);
    let run = clients.into_iter().map(|client| async move {
        let mut tally = Tally::default();
        while Instant::now() < until {
            let (item, amount) = lots.next();
            let began = Instant::now();
            let answer = client.bid(&item, amount).await?;
            if began >= from {
                tally.add(answer, began.elapsed());
            }
        }
        anyhow::Ok(tally)
    });
    let (tallies, own) = tokio::try_join!(try_join_all(run), own_processor_seconds(from, until))?;
    Ok(Tally::sum(tallies, time, own))
}

/// The processors' time that this process takes in between.
async fn own_processor_seconds(from: Instant, until: Instant) -> anyhow::Result<f64> {
    tokio::time::sleep_until(from.into()).await;
    let before = processor_seconds(std::process::id())?;
    tokio::time::sleep_until(until.into()).await;
    Ok(processor_seconds(std::process::id())? - before)
}

/// Bids come at that rate over all connections, however long the answers take.
pub(crate) async fn open(
    clients: Vec<Client>,
    lots: &Arc<Lots>,
    per_second: f64,
    warm_up: Duration,
    time: Duration,
) -> anyhow::Result<Tally> {
    let (from, until) = (Instant::now() + warm_up, Instant::now() + warm_up + time);
    let tally = RefCell::new(Tally::default());
    let place = async |client: Client, item: String, amount| client.bid(&item, amount).await.context("under overload");
    let note = |answer, began: Instant| {
        if began >= from {
            tally.borrow_mut().add(answer, began.elapsed());
        }
    };
    let late = async {
        let mut tick = tokio::time::interval(TICK);
        loop {
            let due = tick.tick().await;
            if due.into_std() >= from {
                tally.borrow_mut().late_ms.push(due.elapsed().as_secs_f64() * 1_000.0);
            }
        }
    };
    let sent = async {
        tokio::select! {
            sent = at_rate(clients, lots, per_second, until, place, note) => sent,
            () = late => unreachable!("it goes on and on"),
        }
    };
    let ((), own) = tokio::try_join!(sent, own_processor_seconds(from, until))?;
    Ok(Tally::sum(vec![tally.into_inner()], time, own))
}

/// Runs a load as if it came from another machine, as far as one can: in a thread of its own, which goes before all others
/// where this user may say so. Whatever else this thread has to do waits until it has ended.
pub(crate) fn from_outside<T: Send>(load: impl AsyncFnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    let run = || {
        go_first().unwrap_or_else(|why| eprintln!("  … the load waits for its turn like everybody: {why}"));
        runtime::Builder::new_current_thread().enable_all().build()?.block_on(load())
    };
    thread::scope(|scope| scope.spawn(run).join()).unwrap_or_else(|panic| resume_unwind(panic))
}

/// This thread goes before all others.
fn go_first() -> anyhow::Result<()> {
    let this = fs::read_link("/proc/thread-self")?;
    let id = this.file_name().context("a thread's id")?;
    let output = Command::new("renice").args(["-n", "-20", "-p"]).arg(id).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// Until then. Each answer is noted with the time at which its bid was placed; those that come later are not.
pub(crate) async fn at_rate<T>(
    clients: Vec<Client>,
    lots: &Arc<Lots>,
    per_second: f64,
    until: Instant,
    place: impl AsyncFn(Client, String, i64) -> anyhow::Result<T>,
    note: impl Fn(T, Instant),
) -> anyhow::Result<()> {
    let (began, each) = (Instant::now(), per_second / f64::from(u32::try_from(clients.len())?));
    let (place, note) = (&place, &note);
    let run = clients.into_iter().map(|client| async move {
        let (mut sent, mut under_way) = (0_u32, FuturesUnordered::new());
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    if Instant::now() >= until {
                        return anyhow::Ok(());
                    }
                    while f64::from(sent) < began.elapsed().as_secs_f64() * each {
                        sent += 1;
                        let (item, amount) = lots.next();
                        let client = client.clone();
                        under_way.push(async move {
                            let began = Instant::now();
                            place(client, item, amount).await.map(|answer| (answer, began))
                        });
                    }
                }
                Some(answered) = under_way.next(), if !under_way.is_empty() => {
                    let (answer, began) = answered?;
                    note(answer, began);
                }
            }
        }
    });
    try_join_all(run).await.map(drop)
}
