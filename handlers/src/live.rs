//! What the streams have in common.
use gavel_proto::v1::Heartbeat;
use gavel_runtime::{clock, live::Pulse, wire::timestamp};

/// A heartbeat of a stream that has told of this version.
pub(crate) fn heartbeat(pulse: Pulse, version: i64) -> Heartbeat {
    Heartbeat { version, stale: pulse.stale, watchers: pulse.watchers, at: Some(timestamp(clock::wall())) }
}
