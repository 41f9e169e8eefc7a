//! What the handlers of one process share, and what each run of one gets of it.
pub(crate) mod io;

pub(crate) mod admission;
pub(crate) mod health;
pub(crate) mod invoke;
pub(crate) mod live;
pub(crate) mod rate_limit;
pub(crate) mod runtime;

pub(crate) use live::{Link, Listens, Live};
