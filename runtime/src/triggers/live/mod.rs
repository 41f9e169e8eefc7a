//! What can be watched: topics whose newest state every service process keeps while somebody looks at them.
//!
//! Each service process has a queue of its own on the broker and hears every event of its feeds (`link`). A topic is
//! loaded from the database when it is first watched, and moved forward by events (`hub`); however many watch it, it is
//! loaded once and kept once; news goes round among them (`fan_out`). While the link is lost, or nobody knows whether
//! events would come over it (`beacon`), all of it is stale, and the watchers are told; when it is back, every watched
//! topic is loaded again, because what was published in between is in the database and nowhere else. And whatever is
//! watched is compared with the database now and then: events are what somebody said, and the database is what is so.

mod audience;
mod beacon;
mod fan_out;
mod feed;
mod hub;
mod link;
mod topic;
mod watch;

pub use feed::{Feed, Reconciled, Topics};
pub use watch::{News, Pulse, Watch};

pub(crate) use beacon::run as send_beacons;
pub(crate) use link::run;
