//! The topics of one feed that somebody watches.
use super::{Feed, Link, crowd::Crowd};
use crate::{Error, Invocation, Io, Result, spec::Trigger, tasks::Tasks, tx::bounded};
use prost::Message;
use std::{
    any::type_name,
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// Reading a topic takes no longer.
const LOAD_TIME: Duration = Duration::from_secs(3);

/// While the link is down, what was loaded so lately is not loaded again, whoever asks.
const FRESH: Duration = Duration::from_secs(1);

/// All topics of a feed.
pub(super) struct Hub<F: Feed> {
    topics: Mutex<HashMap<String, Watched<F>>>,
}

struct Watched<F: Feed> {
    topic: Arc<Topic<F>>,
    by: i64,
}

/// One of them.
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
    meanwhile: Option<Vec<Arc<F::Message>>>,
}

/// What the link needs of a hub, its types forgotten.
pub(super) trait Listens: Send + Sync {
    fn keys(&self) -> &'static [&'static str];
    /// An event has come.
    fn hear(&self, payload: &[u8], tasks: &Tasks);
    /// The watched topics, each with how many watch it here.
    fn audience(&self) -> Vec<(String, i64)>;
    /// How many watch the topic, over all processes.
    fn tell(&self, topic: &str, audience: Option<i64>);
}

impl<F: Feed> Default for Hub<F> {
    fn default() -> Self {
        Self { topics: Mutex::default() }
    }
}

impl<F: Feed> Hub<F> {
    fn topics(&self) -> MutexGuard<'_, HashMap<String, Watched<F>>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more watches the topic.
    pub(super) fn join(&self, name: &str) -> Arc<Topic<F>> {
        let mut topics = self.topics();
        let watched = topics
            .entry(name.to_owned())
            .or_insert_with(|| Watched { topic: Arc::new(Topic::named(name.to_owned())), by: 0 });
        watched.by += 1;
        watched.topic.clone()
    }

    /// One less.
    pub(super) fn leave(&self, name: &str) {
        let mut topics = self.topics();
        if let Some(watched) = topics.get_mut(name) {
            watched.by -= 1;
            if watched.by == 0 {
                topics.remove(name);
            }
        }
    }

    fn find(&self, name: &str) -> Option<Arc<Topic<F>>> {
        self.topics().get(name).map(|watched| watched.topic.clone())
    }
}

impl<F: Feed> Listens for Hub<F> {
    fn keys(&self) -> &'static [&'static str] {
        match F::SPEC.trigger {
            Trigger::Broadcast(keys) => keys,
            _ => &[],
        }
    }

    fn hear(&self, payload: &[u8], tasks: &Tasks) {
        if self.topics().is_empty() {
            return;
        }
        let message = match F::Message::decode(payload) {
            Ok(message) => Arc::new(message),
            Err(error) => return tracing::error!(feed = F::SPEC.name, %error, "an event can't be read"),
        };
        for name in F::topics(&message) {
            let Some(topic) = self.find(&name) else { continue };
            if topic.hear(&message) && topic.crowd.news() {
                tasks.spawn(async move { topic.crowd.go_round().await });
            }
        }
    }

    fn audience(&self) -> Vec<(String, i64)> {
        self.topics().iter().map(|(name, watched)| (name.clone(), watched.by)).collect()
    }

    fn tell(&self, topic: &str, audience: Option<i64>) {
        if let Some(topic) = self.find(topic) {
            topic.audience.send_if_modified(|known| std::mem::replace(known, audience) != audience);
        }
    }
}

impl<F: Feed> Topic<F> {
    fn named(name: String) -> Self {
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
    fn hear(&self, message: &Arc<F::Message>) -> bool {
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
        let _place = io.runtime().live().loads.acquire().await;
        let gathering = Gathering::begin(self);
        let invocation = Invocation { deadline: Instant::now() + LOAD_TIME, ..io.invocation().clone() };
        let state = bounded(LOAD_TIME, F::load(&io.within(invocation), &self.name)).await?;
        gathering.end(state, link);
        Ok(())
    }

    fn is_fresh(&self, link: Link) -> bool {
        let held = self.held.borrow();
        held.loads > 0 && held.epoch == link.epoch && (link.up || held.at.elapsed() < FRESH)
    }
}

/// Events are kept while a topic is being loaded, and no longer, however the loading ends.
struct Gathering<'a, F: Feed>(&'a Topic<F>);

impl<'a, F: Feed> Gathering<'a, F> {
    fn begin(topic: &'a Topic<F>) -> Self {
        topic.held.send_if_modified(|held| {
            held.meanwhile = Some(Vec::new());
            false
        });
        Self(topic)
    }

    fn end(self, mut state: F::State, link: Link) {
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
}

impl<F: Feed> Drop for Gathering<'_, F> {
    fn drop(&mut self) {
        self.0.held.send_if_modified(|held| {
            held.meanwhile = None;
            false
        });
    }
}

/// The feed was not registered.
pub(super) fn unregistered<F: Feed>() -> Error {
    Error::internal(anyhow::anyhow!("feed {} ({}) is not registered", F::SPEC.name, type_name::<F>()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Spec;

    /// The highest number heard.
    struct Highest;

    impl Feed for Highest {
        const SPEC: &'static Spec = &Spec::new("highest", Trigger::Broadcast(&["a"]));
        type Message = prost_types::Duration;
        type State = i64;

        fn topics(_: &prost_types::Duration) -> Vec<String> {
            vec!["t".to_owned()]
        }

        async fn load(_: &Io, _: &str) -> Result<i64> {
            Ok(0)
        }

        fn apply(state: &mut i64, _: &str, message: &prost_types::Duration) -> bool {
            let newer = message.seconds > *state;
            *state = message.seconds.max(*state);
            newer
        }
    }

    fn event(number: i64) -> Vec<u8> {
        prost_types::Duration { seconds: number, nanos: 0 }.encode_to_vec()
    }

    #[test]
    fn what_comes_while_a_topic_is_loaded_is_not_lost_and_what_is_older_changes_nothing() {
        let hub = Hub::<Highest>::default();
        let topic = hub.join("t");
        let gathering = Gathering::begin(&topic);
        hub.hear(&event(7), &Tasks::default());
        assert_eq!(topic.held.borrow().state, None);
        gathering.end(5, Link { epoch: 1, up: true });
        assert_eq!(topic.held.borrow().state, Some(7));
        hub.hear(&event(6), &Tasks::default());
        assert!(topic.crowd.news(), "what is older is no news: nobody is going round");
        hub.hear(&event(8), &Tasks::default());
        assert_eq!(topic.held.borrow().state, Some(8));
    }

    #[tokio::test]
    async fn all_who_watch_are_told_of_the_newest() {
        let (hub, tasks) = (Hub::<Highest>::default(), Tasks::default());
        let topic = hub.join("t");
        Gathering::begin(&topic).end(0, Link { epoch: 1, up: true });
        let mut news: Vec<_> = (0..2_000).map(|_| topic.crowd.join()).collect();
        (1..=9).for_each(|number| hub.hear(&event(number), &tasks));
        for one in &mut news {
            one.changed().await.unwrap();
            assert_eq!(topic.held.borrow().state, Some(9), "nobody looked before all had come");
        }
        assert!(tasks.drain(Duration::from_secs(30)).await, "the round comes to its end");
    }

    #[test]
    fn a_load_that_is_given_up_gathers_no_longer() {
        let hub = Hub::<Highest>::default();
        let topic = hub.join("t");
        drop(Gathering::begin(&topic));
        hub.hear(&event(7), &Tasks::default());
        assert!(topic.held.borrow().meanwhile.is_none());
    }

    #[test]
    fn a_topic_is_kept_while_somebody_watches_it() {
        let hub = Hub::<Highest>::default();
        hub.join("t");
        hub.join("t");
        assert_eq!(hub.audience(), [("t".to_owned(), 2)]);
        hub.leave("t");
        hub.leave("t");
        assert_eq!(hub.audience(), []);
    }

    #[test]
    fn what_an_earlier_connection_loaded_is_loaded_again() {
        let hub = Hub::<Highest>::default();
        let topic = hub.join("t");
        let first = Link { epoch: 1, up: true };
        assert!(!topic.is_fresh(first));
        Gathering::begin(&topic).end(1, first);
        assert!(topic.is_fresh(first));
        assert!(topic.is_fresh(Link { up: false, ..first }), "just now");
        assert!(!topic.is_fresh(Link { epoch: 2, up: true }));
    }
}
