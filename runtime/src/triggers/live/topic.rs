//! One topic that somebody watches, and what is known of it.
use super::{Feed, Reconciled, fan_out::FanOut};
use crate::context::Link;
use crate::{Invocation, Io, Result, base::tasks::Tasks, postgres::tx::bounded};
use std::{
    sync::{Arc, PoisonError, RwLock, RwLockWriteGuard},
    time::{Duration, Instant},
};

/// Reading a topic takes no longer.
const LOAD_TIME: Duration = Duration::from_secs(3);

/// What is watched is compared with the database after so long.
const COMPARED_EVERY: Duration = Duration::from_secs(20);

/// While the link is down, what was loaded so lately is not loaded again, whoever asks.
const FRESH: Duration = Duration::from_secs(1);

/// A topic of a feed.
pub(super) struct Topic<F: Feed> {
    pub(super) name: String,
    held: RwLock<HeldState<F>>,
    /// Those who watch it. They are told of whatever happens.
    pub(super) fan_out: FanOut,
    /// How many they are, over all processes, where that is known.
    audience: RwLock<Option<i64>>,
    /// HeldState by whoever is loading: the others wait and find it loaded.
    loading: tokio::sync::Mutex<()>,
}

/// All that is known of a topic.
pub(super) struct HeldState<F: Feed> {
    /// None before it was first loaded.
    pub(super) state: Option<F::State>,
    /// Number of loads so far.
    pub(super) loads: u64,
    /// The link's epoch when that was last begun.
    pub(super) epoch: u64,
    at: Instant,
    /// What came while it is being loaded, and may not be in it.
    pub(super) meanwhile: Option<Vec<Arc<F::Message>>>,
}

impl<F: Feed> Topic<F> {
    pub(super) fn named(name: String) -> Self {
        let nothing = HeldState { state: None, loads: 0, epoch: 0, at: Instant::now(), meanwhile: None };
        Self {
            name,
            held: RwLock::new(nothing),
            fan_out: FanOut::default(),
            audience: RwLock::default(),
            loading: tokio::sync::Mutex::default(),
        }
    }

    /// Looks at what is known.
    pub(super) fn held<R>(&self, look: impl FnOnce(&HeldState<F>) -> R) -> R {
        look(&self.held.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn held_mut(&self) -> RwLockWriteGuard<'_, HeldState<F>> {
        self.held.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how many watch it, over all processes, where that is known.
    pub(super) fn audience(&self) -> Option<i64> {
        *self.audience.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// So many watch it. Whether that is new.
    pub(super) fn count(&self, audience: Option<i64>) -> bool {
        let mut known = self.audience.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut *known, audience) != audience
    }

    /// Takes an event in. Whether the watchers are to know.
    pub(super) fn hear(&self, message: &Arc<F::Message>) -> bool {
        let mut held = self.held_mut();
        if let Some(meanwhile) = &mut held.meanwhile {
            meanwhile.push(message.clone());
        }
        held.state.as_mut().is_some_and(|state| F::apply(state, &self.name, message))
    }

    /// Loads the topic, unless another watcher has done so since the link was last made.
    pub(super) async fn load(self: &Arc<Self>, io: &Io, link: Link) -> Result<()> {
        let _turn = self.loading.lock().await;
        self.load_in_turn(io, link).await
    }

    /// As [`Topic::load`], unless somebody else is at it. Whether it was done.
    pub(super) async fn load_unless_busy(self: &Arc<Self>, io: &Io, link: Link) -> Result<bool> {
        let Ok(_turn) = self.loading.try_lock() else { return Ok(false) };
        self.load_in_turn(io, link).await.map(|()| true)
    }

    async fn load_in_turn(self: &Arc<Self>, io: &Io, link: Link) -> Result<()> {
        if self.is_fresh(link) {
            return Ok(());
        }
        let (gathering, state) = self.read(io).await?;
        gathering.end(state, link);
        // Those who have an earlier state.
        if self.held(|held| held.loads > 1) {
            self.tell_all(io.runtime().tasks());
        }
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
        if self.held(|held| held.at.elapsed()) < COMPARED_EVERY {
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
                self.tell_all(io.runtime().tasks());
            }
            Some(Reconciled::Newer) => self.tell_all(io.runtime().tasks()),
            Some(Reconciled::Same) | None => {}
        }
    }

    /// There is news.
    pub(super) fn tell_all(self: &Arc<Self>, tasks: &Tasks) {
        if self.fan_out.news() {
            let topic = self.clone();
            tasks.spawn(async move { topic.fan_out.go_round().await });
        }
    }

    pub(super) fn is_fresh(&self, link: Link) -> bool {
        self.held(|held| held.loads > 0 && held.epoch == link.epoch && (link.up || held.at.elapsed() < FRESH))
    }
}

/// Events are kept while a topic is being loaded, and no longer, however the loading ends.
pub(super) struct Gathering<'a, F: Feed>(&'a Topic<F>);

impl<'a, F: Feed> Gathering<'a, F> {
    pub(super) fn begin(topic: &'a Topic<F>) -> Self {
        topic.held_mut().meanwhile = Some(Vec::new());
        Self(topic)
    }

    pub(super) fn end(self, mut state: F::State, link: Link) {
        let mut held = self.0.held_mut();
        for message in held.meanwhile.take().unwrap_or_default() {
            F::apply(&mut state, &self.0.name, &message);
        }
        held.state = Some(state);
        held.loads += 1;
        held.epoch = link.epoch;
        held.at = Instant::now();
    }

    /// None where nothing is held.
    pub(super) fn compare(self, mut loaded: F::State) -> Option<Reconciled> {
        let mut held = self.0.held_mut();
        for message in held.meanwhile.take().unwrap_or_default() {
            F::apply(&mut loaded, &self.0.name, &message);
        }
        held.at = Instant::now();
        let found = held.state.as_mut().map(|state| F::reconcile(state, loaded));
        held.loads += u64::from(found == Some(Reconciled::Repaired));
        found
    }
}

impl<F: Feed> Drop for Gathering<'_, F> {
    fn drop(&mut self) {
        self.0.held_mut().meanwhile = None;
    }
}
