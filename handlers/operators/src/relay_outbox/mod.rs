//! Publishes what the outbox holds: claims some shards, publishes their events in order with confirms, deletes what the
//! broker confirmed. A relay that dies in between leaves the rows, and the next publishes them again under the same
//! message id.
mod sql;

use gavel_runtime::{
    Class, Error, Io, Result, failpoint, ids, poll,
    rabbitmq::{Outgoing, PublishError},
    spec::{Limits, Spec, Trigger},
};
use sql::Pending;
use std::{collections::BTreeSet, time::Duration};
use uuid::Uuid;

/// Events published at a time.
const BATCH: i64 = 512;
/// Shards leased at a time, so that several loops and workers have their share.
const SHARDS: i64 = 4;
/// Time for which a relay may take over a batch before another takes the shard: more than the run's own time-out.
const LEASE: Duration = Duration::from_secs(8);

/// The relay.
pub struct RelayOutbox;

/// Some shards' lease and their events to publish, in order.
pub struct Batch {
    shards: Vec<i16>,
    lease: Uuid,
    events: Vec<Pending>,
}

impl poll::IoHandler for RelayOutbox {
    const SPEC: &'static Spec = &Spec::new("relay_outbox", Trigger::Poll(Duration::from_millis(250)))
        .limits(Limits::DEFAULT.timeout(Duration::from_secs(7)).concurrency(4));
    type Work = Batch;

    async fn claim(io: &Io) -> Result<Option<Batch>> {
        // Lost in a crash, a lease or a deletion costs a second publication under the same message id.
        let mut tx = io.begin_repeatable().await?;
        let lease = ids::random();
        let shards = sql::lease_shards(&mut tx, lease, LEASE, SHARDS).await?;
        let events = if shards.is_empty() { Vec::new() } else { sql::pending(&mut tx, &shards, BATCH).await? };
        if events.is_empty() {
            // Not committed: shards whose events all wait keep no lease.
            io.rollback(tx).await;
            return Ok(None);
        }
        io.commit(tx).await?;
        Ok(Some(Batch { shards, lease, events }))
    }

    async fn handle(io: &Io, Batch { shards, lease, events }: Batch) -> Result<()> {
        let outgoing: Vec<_> = events.iter().map(Pending::outgoing).collect();
        let results = io.publisher().publish_events(&outgoing).await;
        failpoint::hit("relay_outbox", "after_confirm");
        let settlement = settle(&events, &results);
        let mut tx = io.begin_repeatable().await?;
        for (outbox_id, error) in &settlement.refused {
            sql::hold_back(&mut tx, *outbox_id, error).await?;
        }
        sql::delete_and_release(&mut tx, &settlement.published, &shards, lease).await?;
        io.commit(tx).await?;
        match settlement.unconfirmed {
            Some(why) => Err(Error::new(Class::Unavailable, why)),
            None => Ok(()),
        }
    }
}

impl Pending {
    fn outgoing(&self) -> Outgoing {
        Outgoing {
            message_id: self.event_id,
            routing_key: self.routing_key.clone(),
            message_type: self.message_type.clone(),
            payload: self.payload.clone(),
            correlation_id: self.correlation_id.clone(),
            traceparent: self.traceparent.clone(),
            headers: Vec::new(),
        }
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Settlement {
    published: Vec<i64>,
    /// The broker said no to these: they wait, and so do the later events of their keys.
    refused: Vec<(i64, String)>,
    /// The broker is out of reach: nothing is held against the events.
    unconfirmed: Option<String>,
}

/// Returns what becomes of each event. An event that went out after a refused one of the same key stays in the outbox
/// too: it goes out once more behind it, so that the last word each consumer hears is in order.
fn settle(events: &[Pending], results: &[Result<(), PublishError>]) -> Settlement {
    let mut settlement = Settlement::default();
    let mut held: BTreeSet<&str> = BTreeSet::new();
    for (event, result) in events.iter().zip(results) {
        match result {
            Ok(()) if held.contains(event.key.as_str()) => {}
            Ok(()) => settlement.published.push(event.outbox_id),
            Err(error @ PublishError::Unconfirmed(_)) => {
                held.insert(&event.key);
                settlement.unconfirmed.get_or_insert_with(|| error.to_string());
            }
            Err(error) => {
                if held.insert(&event.key) {
                    settlement.refused.push((event.outbox_id, error.to_string()));
                }
            }
        }
    }
    settlement
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(outbox_id: i64, key: &str) -> Pending {
        Pending {
            outbox_id,
            event_id: Uuid::nil(),
            key: key.to_owned(),
            routing_key: String::new(),
            message_type: String::new(),
            payload: Vec::new(),
            correlation_id: String::new(),
            traceparent: String::new(),
        }
    }

    #[test]
    fn a_refused_event_holds_back_its_own_key_alone() {
        let events = [event(1, "a"), event(2, "b"), event(3, "a"), event(4, "b")];
        let results = [Err(PublishError::Refused), Ok(()), Ok(()), Ok(())];
        let settlement = settle(&events, &results);
        assert_eq!(settlement.published, [2, 4]);
        assert_eq!(settlement.refused, [(1, PublishError::Refused.to_string())]);
        assert_eq!(settlement.unconfirmed, None);
    }

    #[test]
    fn a_broker_out_of_reach_is_held_against_nobody() {
        let events = [event(1, "a"), event(2, "a"), event(3, "b")];
        let lost = Err(PublishError::Unconfirmed("gone".to_owned()));
        let settlement = settle(&events, &[lost.clone(), lost, Ok(())]);
        assert_eq!((settlement.published, settlement.refused), (vec![3], vec![]));
        assert!(settlement.unconfirmed.is_some());
    }
}
