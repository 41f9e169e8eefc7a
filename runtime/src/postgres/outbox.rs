//! Writing events into the outbox.
use crate::{Error, Invocation, Result};
use sqlx::PgExecutor;
use uuid::Uuid;

/// The largest event, in bytes: a sixty-fourth of what RabbitMQ 4 takes. Events say what happened; large things are
/// kept elsewhere, and named.
pub const MAX_EVENT_BYTES: usize = 256 * 1_024;
/// Shards of the outbox, a constant of its schema.
const SHARDS: u64 = 16;

/// Something that happened, for the outbox.
#[derive(Debug, Clone)]
pub struct Event {
    /// The message id, minted here and never by the relay, so that a consumer knows a repeated delivery.
    pub event_id: Uuid,
    /// What it happened to. A key's events are published in the order of their versions.
    pub key: String,
    /// Gapless per key.
    pub version: i64,
    /// The AMQP routing key.
    pub routing_key: &'static str,
    /// The protobuf message's full name.
    pub message_type: String,
    /// The encoded message.
    pub payload: Vec<u8>,
}

impl Event {
    /// Wraps a protobuf message.
    pub fn new<M: prost::Name>(
        event_id: Uuid,
        (key, version): (String, i64),
        routing_key: &'static str,
        message: &M,
    ) -> Self {
        Self { event_id, key, version, routing_key, message_type: M::full_name(), payload: message.encode_to_vec() }
    }
}

/// An event on its way into the outbox, with the run that emitted it.
#[derive(Debug)]
pub(crate) struct Emitted {
    event: Event,
    correlation_id: String,
    traceparent: String,
}

impl Emitted {
    /// Refuses what no broker should be asked to take.
    pub(crate) fn by(run: &Invocation, event: Event) -> Result<Self> {
        let bytes = event.payload.len();
        if bytes > MAX_EVENT_BYTES {
            let (kind, key) = (&event.message_type, &event.key);
            let why = format!("an event {kind} about {key} has {bytes} bytes; allowed: {MAX_EVENT_BYTES}");
            return Err(Error::internal(anyhow::anyhow!(why)));
        }
        Ok(Self { event, correlation_id: run.correlation_id.clone(), traceparent: run.traceparent.clone() })
    }
}

/// Events as the columns of one statement.
#[derive(Default)]
pub(crate) struct Columns {
    pub(crate) event_ids: Vec<Uuid>,
    pub(crate) shards: Vec<i16>,
    pub(crate) keys: Vec<String>,
    pub(crate) versions: Vec<i64>,
    pub(crate) routing_keys: Vec<String>,
    pub(crate) message_types: Vec<String>,
    pub(crate) payloads: Vec<Vec<u8>>,
    pub(crate) correlation_ids: Vec<String>,
    pub(crate) traceparents: Vec<String>,
}

impl Columns {
    pub(crate) fn of(emitted: Vec<Emitted>) -> Self {
        let mut columns = Self::default();
        for Emitted { event, correlation_id, traceparent } in emitted {
            columns.event_ids.push(event.event_id);
            columns.shards.push(shard_of(&event.key));
            columns.keys.push(event.key);
            columns.versions.push(event.version);
            columns.routing_keys.push(event.routing_key.to_owned());
            columns.message_types.push(event.message_type);
            columns.payloads.push(event.payload);
            columns.correlation_ids.push(correlation_id);
            columns.traceparents.push(traceparent);
        }
        columns
    }
}

/// Writes all of them in one statement.
pub(crate) async fn write(executor: impl PgExecutor<'_>, emitted: Vec<Emitted>) -> Result<()> {
    let columns = Columns::of(emitted);
    sqlx::query!(
        "INSERT INTO outbox (event_id, shard, key, version, routing_key, message_type, payload,
                             correlation_id, traceparent)
         SELECT event_id, shard, key, version, routing_key, message_type, payload, correlation_id, traceparent
         FROM unnest($1::uuid[], $2::smallint[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::bytea[],
                     $8::text[], $9::text[])
           AS e (event_id, shard, key, version, routing_key, message_type, payload, correlation_id, traceparent)",
        &columns.event_ids,
        &columns.shards,
        &columns.keys,
        &columns.versions,
        &columns.routing_keys,
        &columns.message_types,
        &columns.payloads,
        &columns.correlation_ids,
        &columns.traceparents,
    )
    .execute(executor)
    .await?;
    Ok(())
}

/// FNV-1a: the same key lands in the same shard in every version of this code.
fn shard_of(key: &str) -> i16 {
    let hash = key
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    i16::try_from(hash % SHARDS).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_no_broker_should_take_is_refused_before_it_is_written() {
        let event = |bytes: usize| {
            let message = prost_types::Any { value: vec![0; bytes], ..Default::default() };
            Event::new(crate::base::ids::random(), ("k".to_owned(), 1), "k.done", &message)
        };
        let run = Invocation::start("greet", std::time::Duration::from_secs(1));
        assert!(Emitted::by(&run, event(MAX_EVENT_BYTES - 100)).is_ok());
        let refused = Emitted::by(&run, event(MAX_EVENT_BYTES + 1)).err().unwrap();
        assert!(refused.to_string().contains("allowed: 262144"), "{refused}");
    }

    #[test]
    fn a_keys_shard_never_changes() {
        assert_eq!(shard_of(""), 5);
        assert_eq!(shard_of("a"), 12);
        assert!((0..1_000).all(|n| (0..16).contains(&shard_of(&n.to_string()))));
    }
}
