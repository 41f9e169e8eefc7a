//! Telling workers that there is something to do.
//!
//! NOTIFY takes a lock that all notifying transactions of the server share, through their commit. So it is never part
//! of the transaction that enqueues: after its commit the kind is remembered, and one notification for everything
//! remembered goes out at most every [`DEBOUNCE`]. A lost one costs a poll.
use super::Kind;
use crate::{
    base::tasks::Tasks,
    postgres::{CommitListener, Pool},
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

/// The channel: payloads are kinds, separated by commas; `!` and a job's id asks for its cancellation; [`EVENTS`] says
/// that the outbox has something.
pub(crate) const CHANNEL: &str = "gavel_jobs";
/// What sqlxmq's own `mq_insert` notifies, with an empty payload.
pub(crate) const STOCK_CHANNEL: &str = "mq";
/// The word for events in the outbox. No kind is called so.
pub(crate) const EVENTS: &str = "@";
/// At most one notification in this time, per process.
const DEBOUNCE: Duration = Duration::from_millis(5);
/// A job due later than this needs nobody woken: the poller will have seen it by then.
pub(crate) const LOOKAHEAD: Duration = Duration::from_secs(2);

/// Remembers who is to be woken. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Waker(Arc<Inner>);

struct Inner {
    pool: Pool,
    tasks: Tasks,
    kinds: HashMap<&'static str, Arc<Kind>>,
    pending: Mutex<Pending>,
    /// Loops over the outbox in this process wait here.
    outbox: Notify,
}

#[derive(Default)]
struct Pending {
    words: BTreeSet<String>,
    sending: bool,
}

impl CommitListener for Waker {
    fn committed(&self, kinds: &[&'static str], has_events: bool) {
        self.enqueued(kinds);
        if has_events {
            self.emitted();
        }
    }
}

impl Waker {
    pub(crate) fn new(pool: Pool, tasks: Tasks, kinds: HashMap<&'static str, Arc<Kind>>) -> Self {
        Self(Arc::new(Inner { pool, tasks, kinds, pending: Mutex::default(), outbox: Notify::new() }))
    }

    /// Jobs of these kinds have been committed: wakes who runs them here, and soon those elsewhere.
    fn enqueued(&self, kinds: &[&'static str]) {
        for kind in kinds {
            if let Some(kind) = self.0.kinds.get(*kind) {
                kind.wake();
            }
            self.send((*kind).to_owned());
        }
    }

    /// Events have been committed: wakes who relays them here, and soon those elsewhere.
    fn emitted(&self) {
        self.0.outbox.notify_one();
        self.send(EVENTS.to_owned());
    }

    /// Wakes who relays events here.
    pub(crate) fn heard_of_events(&self) {
        self.0.outbox.notify_one();
    }

    /// Waits until events have been committed.
    pub(crate) async fn events(&self) {
        self.0.outbox.notified().await;
    }

    /// Puts a word into the next notification.
    pub(crate) fn send(&self, word: String) {
        let mut pending = self.0.pending.lock().unwrap_or_else(PoisonError::into_inner);
        pending.words.insert(word);
        if !pending.sending {
            pending.sending = true;
            let waker = self.clone();
            self.0.tasks.spawn(async move { waker.send_all().await });
        }
    }

    async fn send_all(&self) {
        while let Some(words) = self.take() {
            let payload = words.into_iter().collect::<Vec<_>>().join(",");
            let sent = sqlx::query!("SELECT pg_notify($1, $2)", CHANNEL, payload).execute(&self.0.pool).await;
            if let Err(error) = sent {
                tracing::debug!(%error, "a notification was lost; the next poll finds the jobs");
            }
            tokio::time::sleep(DEBOUNCE).await;
        }
    }

    /// Returns what is to be sent; none, and no longer sending, when there is nothing.
    fn take(&self) -> Option<BTreeSet<String>> {
        let mut pending = self.0.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.words.is_empty() {
            pending.sending = false;
            return None;
        }
        Some(std::mem::take(&mut pending.words))
    }
}
