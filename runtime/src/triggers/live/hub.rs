//! The topics of one feed that somebody watches.
use super::{Feed, Topics, topic::Topic};
use crate::context::{Listens, Live};
use crate::{
    Error,
    base::{spec::Trigger, tasks::Tasks},
};
use prost::{Message, Name};
use std::{
    any::{TypeId, type_name},
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// All topics of a feed.
pub(super) struct Hub<F: Feed> {
    topics: Mutex<HashMap<String, Watched<F>>>,
}

struct Watched<F: Feed> {
    topic: Arc<Topic<F>>,
    by: i64,
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

    fn watched(&self) -> Vec<Arc<Topic<F>>> {
        self.topics().values().map(|watched| watched.topic.clone()).collect()
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

    fn hear(&self, message_type: &str, payload: &[u8], tasks: &Tasks) {
        if self.topics().is_empty() {
            return;
        }
        if message_type != F::Message::full_name() {
            return tracing::debug!(
                feed = F::SPEC.name,
                message_type,
                "an event of a type that this version does not know"
            );
        }
        let message = match F::Message::decode(payload) {
            Ok(message) => Arc::new(message),
            Err(error) => return tracing::error!(feed = F::SPEC.name, %error, "an event can't be read"),
        };
        let concerned: Vec<_> = match F::topics(&message) {
            Topics::These(names) => names.iter().filter_map(|name| self.find(name)).collect(),
            Topics::AllWatched => self.watched(),
        };
        for topic in concerned {
            if topic.hear(&message) {
                topic.tell_all(tasks);
            }
        }
    }

    fn audience(&self) -> Vec<(String, i64)> {
        self.topics().iter().map(|(name, watched)| (name.clone(), watched.by)).collect()
    }

    fn tell(&self, topic: &str, audience: Option<i64>, tasks: &Tasks) {
        if let Some(topic) = self.find(topic).filter(|topic| topic.count(audience)) {
            topic.tell_all(tasks);
        }
    }

    fn link_changed(&self, tasks: &Tasks) {
        self.watched().iter().for_each(|topic| topic.tell_all(tasks));
    }
}

impl Live {
    /// One feed more.
    pub(crate) fn add<F: Feed>(&mut self) {
        let hub = Arc::new(Hub::<F>::default());
        self.put(TypeId::of::<F>(), hub.clone(), hub);
    }

    pub(super) fn hub<F: Feed>(&self) -> Option<Arc<Hub<F>>> {
        self.get(TypeId::of::<F>())?.downcast().ok()
    }
}

/// The feed was not registered.
pub(super) fn unregistered<F: Feed>() -> Error {
    Error::internal(anyhow::anyhow!("feed {} ({}) is not registered", F::SPEC.name, type_name::<F>()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Io, Result,
        base::spec::Spec,
        context::Link,
        triggers::live::{Reconciled, topic::Gathering},
    };
    use std::{cmp::Ordering, time::Duration};

    const TYPE: &str = "google.protobuf.Duration";

    /// The highest number heard.
    struct Highest;

    impl Feed for Highest {
        const SPEC: &'static Spec = &Spec::new("highest", Trigger::Broadcast(&["a"]));
        type Message = prost_types::Duration;
        type State = i64;

        fn topics(_: &prost_types::Duration) -> Topics {
            Topics::These(vec!["t".to_owned()])
        }

        async fn load(_: &Io, _: &str) -> Result<i64> {
            Ok(0)
        }

        fn apply(state: &mut i64, _: &str, message: &prost_types::Duration) -> bool {
            let newer = message.seconds > *state;
            *state = message.seconds.max(*state);
            newer
        }

        fn reconcile(state: &mut i64, loaded: i64) -> Reconciled {
            match loaded.cmp(&std::mem::replace(state, loaded)) {
                Ordering::Equal => Reconciled::Same,
                Ordering::Greater => Reconciled::Newer,
                Ordering::Less => Reconciled::Repaired,
            }
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
        hub.hear(TYPE, &event(7), &Tasks::default());
        assert_eq!(topic.held(|held| held.state), None);
        gathering.end(5, Link { epoch: 1, up: true });
        assert_eq!(topic.held(|held| held.state), Some(7));
        hub.hear(TYPE, &event(6), &Tasks::default());
        assert!(topic.fan_out.news(), "what is older is no news: nobody is going round");
        hub.hear(TYPE, &event(8), &Tasks::default());
        assert_eq!(topic.held(|held| held.state), Some(8));
    }

    #[tokio::test]
    async fn all_who_watch_are_told_of_the_newest() {
        let (hub, tasks) = (Hub::<Highest>::default(), Tasks::default());
        let topic = hub.join("t");
        Gathering::begin(&topic).end(0, Link { epoch: 1, up: true });
        let mut news: Vec<_> = (0..2_000).map(|_| topic.fan_out.join()).collect();
        (1..=9).for_each(|number| hub.hear(TYPE, &event(number), &tasks));
        for one in &mut news {
            one.changed().await.unwrap();
            assert_eq!(topic.held(|held| held.state), Some(9), "nobody looked before all had come");
        }
        assert!(tasks.drain(Duration::from_secs(30)).await, "the round comes to its end");
    }

    #[tokio::test]
    async fn what_was_made_up_is_put_right_and_what_came_meanwhile_is_kept() {
        let (hub, tasks) = (Hub::<Highest>::default(), Tasks::default());
        let topic = hub.join("t");
        Gathering::begin(&topic).end(5, Link { epoch: 1, up: true });
        hub.hear(TYPE, &event(9_000), &tasks);
        assert_eq!(Gathering::begin(&topic).compare(6), Some(Reconciled::Repaired));
        assert_eq!((topic.held(|held| held.state), topic.held(|held| held.loads)), (Some(6), 2), "watchers begin anew");
        let gathering = Gathering::begin(&topic);
        hub.hear(TYPE, &event(7), &tasks);
        assert_eq!(gathering.compare(6), Some(Reconciled::Same), "7 came while 6 was being read");
        assert_eq!(Gathering::begin(&topic).compare(8), Some(Reconciled::Newer), "an event was lost");
        assert_eq!((topic.held(|held| held.state), topic.held(|held| held.loads)), (Some(8), 2));
    }

    #[test]
    fn bytes_of_another_type_are_no_event() {
        let hub = Hub::<Highest>::default();
        let topic = hub.join("t");
        Gathering::begin(&topic).end(5, Link { epoch: 1, up: true });
        for other in ["google.protobuf.Timestamp", ""] {
            hub.hear(other, &event(7), &Tasks::default());
        }
        assert_eq!(topic.held(|held| held.state), Some(5));
    }

    #[test]
    fn a_load_that_is_given_up_gathers_no_longer() {
        let hub = Hub::<Highest>::default();
        let topic = hub.join("t");
        drop(Gathering::begin(&topic));
        hub.hear(TYPE, &event(7), &Tasks::default());
        assert!(topic.held(|held| held.meanwhile.is_none()));
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
