//! A sign of life on the events' exchange, from every worker that publishes events.
//!
//! A service hears from its queue only what its bindings lead there, and nothing tells it when they are gone: an
//! exchange that was deleted and declared again has none. So as long as a beacon comes, events would come as well; when
//! none has for a while, nobody knows, and what is watched is stale.
use crate::{
    Runtime,
    base::{ids, invocation::Invocation},
    rabbitmq::Outgoing,
};
use std::time::Duration;

/// The routing key. No event of an application has it.
pub(super) const KEY: &str = "_beacon";
/// The message's type.
pub(super) const TYPE: &str = "gavel.runtime.Beacon";
/// Interval at which each worker sends one.
const EVERY: Duration = Duration::from_secs(2);
/// Without one for so long, there is no knowing whether events would come.
pub(super) const SILENCE: Duration = Duration::from_secs(7);

/// Sends beacons until the drain.
pub(crate) async fn run(runtime: Runtime) {
    loop {
        let Invocation { correlation_id, traceparent, .. } = Invocation::start("beacon", EVERY);
        let beacon = Outgoing {
            message_id: ids::random(),
            routing_key: KEY.to_owned(),
            message_type: TYPE.to_owned(),
            payload: Vec::new(),
            correlation_id,
            traceparent,
            headers: Vec::new(),
        };
        // Nobody may be listening; and whoever publishes events says what is wrong with the broker.
        runtime.publisher().publish_beacon(beacon).await;
        if !runtime.tasks().pause(EVERY).await {
            return;
        }
    }
}
