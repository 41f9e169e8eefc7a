//! PostgreSQL: connections and their pools, transactions, and what is written into every one of them: receipts and
//! events.
pub(crate) mod tx;

pub(crate) mod outbox;
pub(crate) mod receipt;

mod archive;
mod conn;
mod connector;
mod hosts;
mod listener;
mod pool;
mod pooler;
mod pools;
mod session;
mod sizes;
mod standby;
mod waiting;

pub use conn::Conn;
pub use pool::Pool;

pub(crate) use archive::Archive;
pub(crate) use connector::{Connector, State};
pub(crate) use listener::Listener;
pub(crate) use pooler::refuse_shared_sessions;
pub(crate) use pools::{CommitListener, Pools};
pub(crate) use session::Purpose;
pub(crate) use sizes::{Uses, check_sizes};
pub(crate) use standby::{Follower, Standby};
pub(crate) use waiting::patiently;
