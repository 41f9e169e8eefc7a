//! One watcher of one topic.
use super::{
    Feed,
    hub::{Hub, unregistered},
    topic::Topic,
};
use crate::context::Link;
use crate::{Io, Result};
use std::{pin::Pin, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, Sleep},
};

/// Between two tries to load a topic that somebody watches already.
const RETRY: Duration = Duration::from_secs(1);

/// Why a watcher was woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// The topic was loaded: whatever came before it may lack something.
    Loaded,
    /// Events have moved it forward, one or many.
    Changed,
    /// It is time to show that the stream is alive, or what [`Watch::pulse`] says is new. Events may have come as well.
    Pulse,
}

/// The way the stream itself is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pulse {
    /// Changes may be late: the link to the broker is lost.
    pub stale: bool,
    /// How many watch the same topic over all processes; none while that is not known.
    pub watchers: Option<i64>,
}

/// A topic being watched, until it is dropped.
pub struct Watch<F: Feed> {
    io: Io,
    hub: Arc<Hub<F>>,
    topic: Arc<Topic<F>>,
    /// Whatever happens to the topic, to the link or to the audience.
    news: watch::Receiver<()>,
    /// Of the state that was last told of.
    loads: u64,
    epoch: u64,
    told: Pulse,
    every: Duration,
    next_pulse: Pin<Box<Sleep>>,
}

impl Io {
    /// Watches a topic of a registered feed.
    ///
    /// # Errors
    /// When the feed is not registered.
    pub fn watch<F: Feed>(&self, topic: &str) -> Result<Watch<F>> {
        Watch::begin(self, topic)
    }
}

impl<F: Feed> Drop for Watch<F> {
    fn drop(&mut self) {
        self.hub.leave(&self.topic.name);
    }
}

impl<F: Feed> Watch<F> {
    /// Begins to watch.
    ///
    /// # Errors
    /// When the feed is not registered.
    pub(crate) fn begin(io: &Io, topic: &str) -> Result<Self> {
        let (live, every) = (io.runtime().live(), io.runtime().streams().heartbeat);
        let hub = live.hub::<F>().ok_or_else(unregistered::<F>)?;
        let topic = hub.join(topic);
        Ok(Self {
            io: io.within(io.invocation().clone()),
            news: topic.fan_out.join(),
            loads: 0,
            epoch: 0,
            told: Pulse { stale: true, watchers: None },
            every,
            next_pulse: Box::pin(tokio::time::sleep(every)),
            hub,
            topic,
        })
    }

    /// Waits until there is something to tell. The first is [`News::Loaded`].
    ///
    /// # Errors
    /// Those of the first load. Later the topic goes on as it was, stale.
    pub async fn next(&mut self) -> Result<News> {
        loop {
            let link = self.link();
            if self.loads == 0 || self.epoch != link.epoch {
                let loaded = tokio::select! {
                    loaded = self.topic.load(&self.io, link) => loaded,
                    // However long that takes, the stream shows that it is alive.
                    () = self.next_pulse.as_mut(), if self.loads > 0 => {
                        self.next_pulse.as_mut().reset(Instant::now() + self.every);
                        return Ok(News::Pulse);
                    }
                };
                match loaded {
                    Ok(()) => return Ok(self.see()),
                    Err(error) if self.loads == 0 => return Err(error),
                    Err(error) => {
                        tracing::warn!(feed = F::SPEC.name, topic = self.topic.name, %error, "loaded again soon");
                        tokio::time::sleep(RETRY).await;
                        continue;
                    }
                }
            }
            // Also where there is always something new.
            if Instant::now() >= self.next_pulse.deadline() {
                return Ok(self.beat(link).await);
            }
            tokio::select! {
                biased;
                _ = self.news.changed() => {
                    // Where a queue was bound anew, it is loaded first.
                    if self.link().epoch == self.epoch {
                        return Ok(self.see());
                    }
                }
                () = self.next_pulse.as_mut() => return Ok(self.beat(link).await),
            }
        }
    }

    /// Takes notice of what is held now, and of how the stream is.
    fn see(&mut self) -> News {
        // First, so that what comes from now on is told of.
        self.news.mark_unchanged();
        let (loads, epoch) = self.topic.held(|held| (held.loads, held.epoch));
        let is_loaded = loads != self.loads;
        (self.loads, self.epoch) = (loads, epoch);
        let before = self.told;
        self.pulse();
        match is_loaded {
            true => News::Loaded,
            false if before != self.told => News::Pulse,
            false => News::Changed,
        }
    }

    /// It is time to show that the stream is alive. Without events, the database is asked instead.
    async fn beat(&mut self, link: Link) -> News {
        self.next_pulse.as_mut().reset(Instant::now() + self.every);
        if link.up {
            self.topic.compare(&self.io).await;
        } else if self.topic.load_unless_busy(&self.io, link).await.is_ok_and(|loaded| loaded) {
            return self.see();
        }
        News::Pulse
    }

    fn link(&self) -> Link {
        *self.io.runtime().live().link.borrow()
    }

    /// Reads the topic's state.
    ///
    /// # Panics
    /// Before the first [`News::Loaded`].
    pub fn read<R>(&self, read: impl FnOnce(&F::State) -> R) -> R {
        self.topic.held(|held| read(held.state.as_ref().expect("the topic was loaded")))
    }

    /// Returns how the stream is. Whoever asks is woken when it is not so any more.
    pub fn pulse(&mut self) -> Pulse {
        let link = self.link();
        self.told = Pulse { stale: !link.up || link.epoch != self.epoch, watchers: self.topic.audience() };
        self.told
    }
}
