//! What can be watched in this process, its types forgotten.
use crate::base::tasks::Tasks;
use std::{
    any::{Any, TypeId},
    collections::HashMap,
    sync::Arc,
};
use tokio::sync::{Semaphore, watch as channel};

/// What the link needs of a hub, its types forgotten.
pub(crate) trait Listens: Send + Sync {
    fn keys(&self) -> &'static [&'static str];
    /// An event has come.
    fn hear(&self, message_type: &str, payload: &[u8], tasks: &Tasks);
    /// The watched topics, each with how many watch it here.
    fn audience(&self) -> Vec<(String, i64)>;
    /// How many watch the topic, over all processes.
    fn tell(&self, topic: &str, audience: Option<i64>, tasks: &Tasks);
    /// The link is not what it was.
    fn link_changed(&self, tasks: &Tasks);
}

/// Loads at the same time.
const LOADS: usize = 3;

/// The link over which events come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Link {
    /// Counts connections: what was loaded in an earlier one may lack events.
    pub(crate) epoch: u64,
    pub(crate) up: bool,
}

/// The feeds of a process.
pub(crate) struct Live {
    pub(crate) link: channel::Sender<Link>,
    /// In the order of their registration.
    pub(crate) hubs: Vec<Arc<dyn Listens>>,
    by_type: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
    /// Topics loaded at the same time: after a lost link all of them want to be, and reads have a pool to themselves
    /// only as long.
    pub(crate) loads: Semaphore,
}

impl Default for Live {
    fn default() -> Self {
        let link = channel::Sender::new(Link::default());
        Self { link, hubs: Vec::new(), by_type: HashMap::new(), loads: Semaphore::new(LOADS) }
    }
}

impl Live {
    /// Puts in a hub, to be found by the type of its feed.
    pub(crate) fn put(&mut self, feed: TypeId, hub: Arc<dyn Listens>, typed: Arc<dyn Any + Send + Sync>) {
        self.hubs.push(hub);
        self.by_type.insert(feed, typed);
    }

    /// The hub of that type of feed.
    pub(crate) fn get(&self, feed: TypeId) -> Option<Arc<dyn Any + Send + Sync>> {
        self.by_type.get(&feed).cloned()
    }

    /// Every routing key that some feed wants to hear.
    pub(crate) fn keys(&self) -> Vec<&'static str> {
        let mut keys: Vec<_> = self.hubs.iter().flat_map(|hub| hub.keys().iter().copied()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}
