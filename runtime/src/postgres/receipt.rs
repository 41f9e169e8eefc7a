//! Receipts. Looked for before the work, written as its last statement: the second transaction that wants to write one
//! finds it there, having waited for the first, and is rolled back whole.
use super::outbox::Columns;
use crate::{Class, Error, Result, Tx};
use chrono::{DateTime, Utc};
use prost::Message;
use sqlx::PgExecutor;
use std::collections::HashSet;
use uuid::Uuid;

/// Which call this is: unique per caller and operation.
#[derive(Debug, Clone)]
pub(crate) struct CallKey {
    pub(crate) principal: String,
    pub(crate) operation: &'static str,
    pub(crate) key: Uuid,
    /// SHA-256 of what the request means, however it is spelled.
    pub(crate) intent: [u8; 32],
    /// SHA-256 of the encoded request: receipts of earlier versions have it instead.
    pub(crate) former: [u8; 32],
}

impl CallKey {
    fn is_of(&self, hash: &[u8]) -> bool {
        hash == self.intent || hash == self.former
    }
}

/// A call's result as it was first given: an encoded reply or a refusal.
pub(crate) type Outcome = std::result::Result<Vec<u8>, Error>;

/// `google.rpc.Status`, <https://github.com/googleapis/googleapis/blob/master/google/rpc/status.proto>.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(crate) details: Vec<prost_types::Any>,
}

impl RpcStatus {
    pub(crate) fn of(error: &Error) -> Self {
        Self {
            code: i32::from(error.class().grpc_code()),
            message: error.message().to_owned(),
            details: error.details().to_vec(),
        }
    }
}

/// Returns what was answered to these calls before: to each, where it was made before.
///
/// [`Class::Conflict`] where the key was used with another request.
pub(crate) async fn find(executor: impl PgExecutor<'_>, calls: &[&CallKey]) -> Result<Vec<Option<Outcome>>> {
    let principals: Vec<_> = calls.iter().map(|call| call.principal.clone()).collect();
    let operations: Vec<_> = calls.iter().map(|call| call.operation.to_owned()).collect();
    let keys: Vec<_> = calls.iter().map(|call| call.key).collect();
    // Looked up one by one through the primary key: joined, a plan that reads the whole table could be chosen.
    let rows = sqlx::query!(
        r#"SELECT c.place AS "place!", k.request_hash, k.status_code, k.reply
           FROM unnest($1::text[], $2::text[], $3::uuid[]) WITH ORDINALITY
             AS c (principal, operation, idempotency_key, place)
           CROSS JOIN LATERAL (
             SELECT request_hash, status_code, reply FROM idempotency_keys i
             WHERE i.principal = c.principal AND i.operation = c.operation AND i.idempotency_key = c.idempotency_key
             LIMIT 1) k"#,
        &principals,
        &operations,
        &keys,
    )
    .fetch_all(executor)
    .await?;
    let mut found: Vec<_> = calls.iter().map(|_| None).collect();
    for row in rows {
        let Some(place) = usize::try_from(row.place - 1).ok().filter(|place| *place < calls.len()) else { continue };
        found[place] = Some(outcome_of(calls[place], &row.request_hash, row.status_code, row.reply)?);
    }
    Ok(found)
}

fn outcome_of(call: &CallKey, request_hash: &[u8], status_code: i16, reply: Vec<u8>) -> Result<Outcome> {
    if !call.is_of(request_hash) {
        let message = format!(
            "idempotency key {} was used with another request; allowed: that request again, or, for another intent, a new key",
            call.key
        );
        return Ok(Err(Error::new(Class::Conflict, message)));
    }
    if status_code == 0 {
        return Ok(Ok(reply));
    }
    let status = RpcStatus::decode(&reply[..]).map_err(Error::internal)?;
    Ok(Err(Error::new(Class::Refused, status.message).with_details(status.details)))
}

/// Writes the receipts of calls, and with them the events that this transaction has emitted, in one statement. False
/// when another run of one of the calls was first: this transaction must be rolled back.
pub(crate) async fn record<'a>(
    tx: &mut Tx,
    receipts: impl IntoIterator<Item = (&'a CallKey, &'a Outcome)>,
) -> Result<bool> {
    let mut receipts: Vec<_> = receipts.into_iter().collect();
    // In one order whoever writes them, so that two batches with the same calls don't wait for each other in a circle.
    receipts.sort_unstable_by(|(a, _), (b, _)| (&a.principal, a.key).cmp(&(&b.principal, b.key)));
    let (mut principals, mut operations, mut keys) = (Vec::new(), Vec::new(), Vec::new());
    let (mut hashes, mut statuses, mut replies) = (Vec::new(), Vec::new(), Vec::new());
    for (call, outcome) in receipts {
        principals.push(call.principal.clone());
        operations.push(call.operation.to_owned());
        keys.push(call.key);
        hashes.push(call.intent.to_vec());
        statuses.push(outcome.as_ref().err().map_or(0, status_of));
        replies.push(match outcome {
            Ok(reply) => reply.clone(),
            Err(refusal) => RpcStatus::of(refusal).encode_to_vec(),
        });
    }
    let events = Columns::of(tx.take_emitted());
    let written = sqlx::query!(
        r#"WITH emitted AS (
             INSERT INTO outbox (event_id, shard, key, version, routing_key, message_type, payload,
                                 correlation_id, traceparent)
             SELECT event_id, shard, key, version, routing_key, message_type, payload, correlation_id, traceparent
             FROM unnest($7::uuid[], $8::smallint[], $9::text[], $10::bigint[], $11::text[], $12::text[], $13::bytea[],
                         $14::text[], $15::text[])
               AS e (event_id, shard, key, version, routing_key, message_type, payload, correlation_id, traceparent))
           INSERT INTO idempotency_keys (principal, operation, idempotency_key, request_hash, status_code, reply)
           SELECT principal, operation, idempotency_key, request_hash, status_code, reply
           FROM unnest($1::text[], $2::text[], $3::uuid[], $4::bytea[], $5::smallint[], $6::bytea[])
             AS r (principal, operation, idempotency_key, request_hash, status_code, reply)
           ON CONFLICT ON CONSTRAINT idempotency_keys_pkey DO NOTHING"#,
        &principals,
        &operations,
        &keys,
        &hashes,
        &statuses,
        &replies,
        &events.event_ids,
        &events.shards,
        &events.keys,
        &events.versions,
        &events.routing_keys,
        &events.message_types,
        &events.payloads,
        &events.correlation_ids,
        &events.traceparents,
    )
    .execute(tx.conn())
    .await?;
    Ok(written.rows_affected() == keys.len() as u64)
}

fn status_of(refusal: &Error) -> i16 {
    i16::try_from(refusal.class().grpc_code()).unwrap_or(i16::MAX)
}

/// Which of these messages' effects are committed already.
pub(crate) async fn in_inbox(tx: &mut Tx, consumer: &str, message_ids: &[Uuid]) -> Result<HashSet<Uuid>> {
    let found = sqlx::query_scalar!(
        r#"SELECT m.id AS "id!" FROM unnest($2::uuid[]) AS m (id)
           WHERE EXISTS (SELECT FROM inbox i WHERE i.consumer = $1 AND i.message_id = m.id)"#,
        consumer,
        message_ids,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(found.into_iter().collect())
}

/// Writes messages' receipts. False when another delivery of one was first: this transaction must be rolled back.
pub(crate) async fn put_in_inbox(tx: &mut Tx, consumer: &str, message_ids: &[Uuid]) -> Result<bool> {
    let mut message_ids = message_ids.to_vec();
    message_ids.sort_unstable();
    let written = sqlx::query!(
        "INSERT INTO inbox (consumer, message_id) SELECT $1, id FROM unnest($2::uuid[]) AS m (id)
         ON CONFLICT ON CONSTRAINT inbox_pkey DO NOTHING",
        consumer,
        &message_ids,
    )
    .execute(tx.conn())
    .await?;
    Ok(written.rows_affected() == message_ids.len() as u64)
}

/// Locks a schedule's row: its newest tick, and the database's time. None while another replica holds it. A schedule
/// seen for the first time begins now.
pub(crate) async fn lock_schedule(tx: &mut Tx, schedule: &str) -> Result<Option<(DateTime<Utc>, DateTime<Utc>)>> {
    sqlx::query!(
        "INSERT INTO schedule_ticks (schedule, tick_at) VALUES ($1, clock_timestamp()) ON CONFLICT DO NOTHING",
        schedule,
    )
    .execute(tx.conn())
    .await?;
    let locked = sqlx::query!(
        r#"SELECT tick_at, clock_timestamp() AS "now!" FROM schedule_ticks WHERE schedule = $1 FOR UPDATE SKIP LOCKED"#,
        schedule,
    )
    .fetch_optional(tx.conn())
    .await?;
    Ok(locked.map(|row| (row.tick_at, row.now)))
}

/// Writes the receipt of a schedule's tick, whose row is locked.
pub(crate) async fn record_tick(tx: &mut Tx, schedule: &str, tick_at: DateTime<Utc>) -> Result<()> {
    sqlx::query!("UPDATE schedule_ticks SET tick_at = $2 WHERE schedule = $1", schedule, tick_at)
        .execute(tx.conn())
        .await?;
    Ok(())
}
