//! Jobs as rows: enqueued, claimed, settled, counted. The handlers that run them are elsewhere.
pub mod inspect;
pub mod ops;

pub(crate) mod claim;
pub(crate) mod depth;
pub(crate) mod engine;
pub(crate) mod enqueue;
pub(crate) mod limit;
pub(crate) mod payload;
pub(crate) mod settle;
pub(crate) mod step;
pub(crate) mod stop;
pub(crate) mod wake;

pub use depth::{COUNTED, DRAIN_WITHIN, Depth};
pub use enqueue::{Enqueued, Options, Priority, Unique};
pub use ops::forget_dead;
pub use payload::{Job, MAX_DEATHS, MAX_ERRORS, MAX_KEY_BYTES};

pub(crate) use engine::{Engine, Kind};
pub(crate) use payload::{BASE_BACKOFF, Headers};
pub(crate) use wake::Waker;
