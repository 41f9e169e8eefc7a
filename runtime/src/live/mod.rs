//! What can be watched: topics whose newest state every service process keeps while somebody looks at them.
//!
//! Each service process has a queue of its own on the broker and hears every event of its feeds (`link`). A topic is loaded
//! from the database when it is first watched, and moved forward by events (`hub`); however many watch it, it is loaded
//! once and kept once; news goes round among them (`crowd`). While the link is lost, or nobody knows whether events would come
//! over it (`beacon`), all of it is stale, and the watchers are told; when it is back, every watched topic is loaded again,
//! because what was published in between is in the database and nowhere else. And whatever is watched is compared with the
//! database now and then: events are what somebody said, and the database is what is so.

mod audience;
mod beacon;
mod crowd;
mod hub;
mod link;
mod topic;
mod watch;

pub use watch::{News, Pulse, Watch};

pub(crate) use beacon::run as send_beacons;
pub(crate) use link::run;

use crate::{Io, Result, spec::Spec};
use hub::{Hub, Listens};
use std::{
    any::{Any, TypeId},
    collections::HashMap,
    sync::Arc,
};
use tokio::sync::{Semaphore, watch as channel};

/// A kind of topics: how one is loaded, and how events move it forward.
pub trait Feed: Send + Sync + 'static {
    /// Name and routing keys ([`Trigger::Broadcast`](crate::spec::Trigger::Broadcast)).
    const SPEC: &'static Spec;
    /// The events.
    type Message: prost::Name + Default + 'static;
    /// A topic as it is now.
    type State: Send + Sync + 'static;

    /// The topics that an event is about.
    fn topics(message: &Self::Message) -> Topics;

    /// Reads a topic from the database.
    ///
    /// # Errors
    /// Whoever watches a topic first gets them.
    fn load(io: &Io, topic: &str) -> impl Future<Output = Result<Self::State>> + Send;

    /// Moves a topic forward. Events may come twice, and older than the state: those must change nothing. Returns whether the
    /// watchers are to be woken.
    fn apply(state: &mut Self::State, topic: &str, message: &Self::Message) -> bool;

    /// Puts right what events have made of a topic, by what the database says, which was asked after they came.
    fn reconcile(state: &mut Self::State, loaded: Self::State) -> Reconciled;
}

/// Which topics an event is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topics {
    /// Those of these names.
    These(Vec<String>),
    /// Any that are watched: each finds out by what it holds. For events that are rare, since each topic is looked at.
    AllWatched,
}

/// What comparing a topic with the database came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reconciled {
    /// They agree.
    Same,
    /// The database is ahead: an event is on its way, or was lost.
    Newer,
    /// Somebody said what is not so: it was put right, and whoever watches must forget what they have.
    Repaired,
}

/// Loads at the same time.
const LOADS: usize = 3;

/// Whether events come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Link {
    /// Counts connections: what was loaded in an earlier one may lack events.
    epoch: u64,
    up: bool,
}

/// The feeds of a process.
pub(crate) struct Live {
    link: channel::Sender<Link>,
    /// In the order of their registration.
    hubs: Vec<Arc<dyn Listens>>,
    by_type: HashMap<TypeId, Arc<dyn Any + Send + Sync>>,
    /// Topics loaded at the same time: after a lost link all of them want to be, and reads have a pool to themselves only as long.
    loads: Semaphore,
}

impl Default for Live {
    fn default() -> Self {
        let link = channel::Sender::new(Link::default());
        Self { link, hubs: Vec::new(), by_type: HashMap::new(), loads: Semaphore::new(LOADS) }
    }
}

impl Live {
    pub(crate) fn add<F: Feed>(&mut self) {
        let hub = Arc::new(Hub::<F>::default());
        self.hubs.push(hub.clone());
        self.by_type.insert(TypeId::of::<F>(), hub);
    }

    fn hub<F: Feed>(&self) -> Option<Arc<Hub<F>>> {
        self.by_type.get(&TypeId::of::<F>())?.clone().downcast().ok()
    }

    /// Every routing key that some feed wants to hear.
    fn keys(&self) -> Vec<&'static str> {
        let mut keys: Vec<_> = self.hubs.iter().flat_map(|hub| hub.keys().iter().copied()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}
