//! One topic that somebody watches, and what is known of it.
use super::{Feed, Link, Reconciled, crowd::Crowd};
use crate::{Invocation, Io, Result, tasks::Tasks, tx::bounded};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Reading a topic takes no longer.
const LOAD_TIME: Duration = Duration::from_secs(3);

/// What is watched is compared with the database after so long.
const COMPARED_EVERY: Duration = Duration::from_secs(20);

/// While the link is down, what was loaded so lately is not loaded again, whoever asks.
const FRESH: Duration = Duration::from_secs(1);

/// A topic of a feed.
pub(super) struct Topic<F: Feed> {
    pub(super) name: String,
    /// Its receivers are told when it was loaded, and by the crowd of what has come since.
    pub(super) held: watch::Sender<Held<F>>,
    pub(super) crowd: Crowd,
    /// How many watch it, over all processes, where that is known.
    pub(super) audience: watch::Sender<Option<i64>>,
    /// Held by whoever is loading: the others wait and find it loaded.
    loading: tokio::sync::Mutex<()>,
}

/// What is known of a topic.
pub(super) struct Held<F: Feed> {
    /// None before it was first loaded.
    pub(super) state: Option<F::State>,
    /// How often it was loaded.
    pub(super) loads: u64,
    /// The link's epoch when that was last begun.
    pub(super) epoch: u64,
    at: Instant,
    /// What came while it is being loaded, and may not be in it.
    pub(super) meanwhile: Option<Vec<Arc<F::Message>>>,
}

impl<F: Feed> Topic<F> {
    pub(super) fn named(name: String) -> Self {
        let nothing = Held { state: None, loads: 0, epoch: 0, at: Instant::now(), meanwhile: None };
        Self {
            name,
            held: watch::Sender::new(nothing),
            crowd: Crowd::default(),
            audience: watch::Sender::new(None),
            loading: tokio::sync::Mutex::default(),
        }
    }

    /// Takes an event in. Whether the watchers are to know.
    pub(super) fn hear(&self, message: &Arc<F::Message>) -> bool {
        let mut is_news = false;
        self.held.send_if_modified(|held| {
            if let Some(meanwhile) = &mut held.meanwhile {
                meanwhile.push(message.clone());
            }
            is_news = held.state.as_mut().is_some_and(|state| F::apply(state, &self.name, message));
            false
        });
        is_news
    }

    /// Loads the topic, unless another watcher has done so since the link was last made.
    pub(super) async fn load(&self, io: &Io, link: Link) -> Result<()> {
        let _turn = self.loading.lock().await;
        self.load_in_turn(io, link).await
    }

    /// As [`Topic::load`], unless somebody else is at it: then all are woken once it is done. Whether it was.
    pub(super) async fn load_unless_busy(&self, io: &Io, link: Link) -> Result<bool> {
        let Ok(_turn) = self.loading.try_lock() else { return Ok(false) };
        self.load_in_turn(io, link).await.map(|()| true)
    }

    async fn load_in_turn(&self, io: &Io, link: Link) -> Result<()> {
        if self.is_fresh(link) {
            return Ok(());
        }
        let (gathering, state) = self.read(io).await?;
        gathering.end(state, link);
        Ok(())
    }

    async fn read(&self, io: &Io) -> Result<(Gathering<'_, F>, F::State)> {
        let _place = io.runtime().live().loads.acquire().await;
        let gathering = Gathering::begin(self);
        let invocation = Invocation { deadline: Instant::now() + LOAD_TIME, ..io.invocation().clone() };
        let state = bounded(LOAD_TIME, F::load(&io.within(invocation), &self.name)).await?;
        Ok((gathering, state))
    }

    /// Compares what is held with the database, where nobody has for long.
    pub(super) async fn compare(self: &Arc<Self>, io: &Io) {
        if self.held.borrow().at.elapsed() < COMPARED_EVERY {
            return;
        }
        let Ok(_turn) = self.loading.try_lock() else { return };
        let found = match self.read(io).await {
            Ok((gathering, loaded)) => gathering.compare(loaded),
            Err(error) => {
                return tracing::debug!(feed = F::SPEC.name, topic = self.name, %error, "it is compared later");
            }
        };
        match found {
            Some(Reconciled::Repaired) => {
                tracing::warn!(feed = F::SPEC.name, topic = self.name, "an event said what is not so: it is put right");
            }
            Some(Reconciled::Newer) => self.tell_all(io.runtime().tasks()),
            Some(Reconciled::Same) | None => {}
        }
    }

    /// There is news.
    pub(super) fn tell_all(self: &Arc<Self>, tasks: &Tasks) {
        if self.crowd.news() {
            let topic = self.clone();
            tasks.spawn(async move { topic.crowd.go_round().await });
        }
    }

    pub(super) fn is_fresh(&self, link: Link) -> bool {
        let held = self.held.borrow();
        held.loads > 0 && held.epoch == link.epoch && (link.up || held.at.elapsed() < FRESH)
    }
}

/// Events are kept while a topic is being loaded, and no longer, however the loading ends.
pub(super) struct Gathering<'a, F: Feed>(&'a Topic<F>);

impl<'a, F: Feed> Gathering<'a, F> {
    pub(super) fn begin(topic: &'a Topic<F>) -> Self {
        topic.held.send_if_modified(|held| {
            held.meanwhile = Some(Vec::new());
            false
        });
        Self(topic)
    }

    pub(super) fn end(self, mut state: F::State, link: Link) {
        self.0.held.send_modify(|held| {
            for message in held.meanwhile.take().unwrap_or_default() {
                F::apply(&mut state, &self.0.name, &message);
            }
            held.state = Some(state);
            held.loads += 1;
            held.epoch = link.epoch;
            held.at = Instant::now();
        });
    }

    /// None where nothing is held.
    pub(super) fn compare(self, mut loaded: F::State) -> Option<Reconciled> {
        let mut found = None;
        self.0.held.send_if_modified(|held| {
            for message in held.meanwhile.take().unwrap_or_default() {
                F::apply(&mut loaded, &self.0.name, &message);
            }
            held.at = Instant::now();
            found = held.state.as_mut().map(|state| F::reconcile(state, loaded));
            let is_repaired = found == Some(Reconciled::Repaired);
            held.loads += u64::from(is_repaired);
            is_repaired
        });
        found
    }
}

impl<F: Feed> Drop for Gathering<'_, F> {
    fn drop(&mut self) {
        self.0.held.send_if_modified(|held| {
            held.meanwhile = None;
            false
        });
    }
}
