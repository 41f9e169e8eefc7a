//! What can be watched.
use crate::{Io, Result, base::spec::Spec};

/// A kind of topics: how one is loaded, and how events move it forward.
pub trait Feed: Send + Sync + 'static {
    /// Name and routing keys ([`Trigger::Broadcast`](crate::base::spec::Trigger::Broadcast)).
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

    /// Moves a topic forward. Events may come twice, and older than the state: those must change nothing. Returns
    /// whether the watchers are to be woken.
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

/// The outcome of comparing a topic with the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reconciled {
    /// They agree.
    Same,
    /// The database is ahead: an event is on its way, or was lost.
    Newer,
    /// Somebody said what is not so: it was put right, and whoever watches must forget what they have.
    Repaired,
}
