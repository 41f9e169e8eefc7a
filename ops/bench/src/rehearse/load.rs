//! Bids at a steady rate, whoever waits, over whichever services live, with a ledger of what was acknowledged.
use crate::bids::{
    client::{Client, Reply},
    load::Lots,
};
use std::{
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// An acknowledged bid.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Acknowledged {
    pub(crate) bid_id: String,
    pub(crate) amount_minor: i64,
}

/// What one bid came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// When it was due, since the beginning.
    pub(crate) at: Duration,
    pub(crate) took: Duration,
}

/// The times in ms, sorted, of the bids that were due between these times, in seconds since the beginning.
pub(crate) fn took_ms(samples: &[Sample], between: Range<f64>) -> Vec<f64> {
    let inside = samples.iter().filter(|sample| between.contains(&sample.at.as_secs_f64()));
    let mut took: Vec<_> = inside.map(|sample| sample.took.as_secs_f64() * 1_000.0).collect();
    took.sort_by(f64::total_cmp);
    took
}

/// Everything that was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) samples: Vec<Sample>,
    pub(crate) acknowledged: Vec<Acknowledged>,
    pub(crate) refused: u64,
    /// Answers that no client should get.
    pub(crate) errors: Vec<String>,
}

/// The load. It goes on until it is stopped.
pub(crate) struct Load {
    pub(crate) began: Instant,
    live: Arc<Mutex<Vec<Client>>>,
    seen: Arc<Mutex<Seen>>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Load {
    pub(crate) fn begin(items: u32, per_second: u32) -> Self {
        let (began, stop) = (Instant::now(), CancellationToken::new());
        let (live, seen) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Seen::default())));
        let mut tasks = JoinSet::new();
        tasks.spawn(bid_on(began, Lots::new(items), per_second, live.clone(), seen.clone(), stop.clone()));
        Self { began, live, seen, stop, tasks }
    }

    /// From now on these take the bids: what is under way elsewhere comes to its end.
    pub(crate) fn goes_to(&self, clients: Vec<Client>) {
        *lock(&self.live) = clients;
    }

    pub(crate) async fn end(mut self) -> Seen {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        std::mem::take(&mut lock(&self.seen))
    }
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn bid_on(
    began: Instant,
    lots: Arc<Lots>,
    per_second: u32,
    live: Arc<Mutex<Vec<Client>>>,
    seen: Arc<Mutex<Seen>>,
    stop: CancellationToken,
) {
    let (mut sent, mut bids) = (0_u32, JoinSet::new());
    let mut tick = tokio::time::interval(Duration::from_millis(2));
    while !stop.is_cancelled() {
        tick.tick().await;
        while bids.try_join_next().is_some() {}
        while f64::from(sent) < began.elapsed().as_secs_f64() * f64::from(per_second) {
            sent += 1;
            let client = {
                let live = lock(&live);
                if live.is_empty() {
                    continue;
                }
                live[sent as usize % live.len()].clone()
            };
            let (seen, (item, amount), due) = (seen.clone(), lots.next(), Instant::now());
            bids.spawn(async move {
                let reply = client.place(&item, amount).await;
                let mut seen = lock(&seen);
                seen.samples.push(Sample { at: due - began, took: due.elapsed() });
                match reply {
                    Ok(Reply::Accepted(reply)) => {
                        seen.acknowledged.push(Acknowledged { bid_id: reply.bid_id, amount_minor: amount });
                    }
                    // By the rules: one that was sent later was decided first.
                    Ok(Reply::Refused(9)) => seen.refused += 1,
                    Ok(Reply::Refused(code)) => seen.errors.push(format!("gRPC code {code}")),
                    Err(error) => seen.errors.push(format!("{error:#}")),
                }
            });
        }
    }
    while bids.join_next().await.is_some() {}
}
