//! Receipts. Looked for before the work, written as its last statement: written twice, the second transaction fails on
//! the primary key and is rolled back whole.
use crate::{Class, Error, Result, Tx, error::violates};
use chrono::{DateTime, Utc};
use prost::Message;
use sqlx::PgExecutor;
use uuid::Uuid;

/// Which call this is: unique per caller and operation.
#[derive(Debug, Clone)]
pub(crate) struct CallKey {
    pub(crate) principal: String,
    pub(crate) operation: &'static str,
    pub(crate) key: Uuid,
    /// SHA-256 of the encoded request.
    pub(crate) request_hash: [u8; 32],
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
            details: error.detail().cloned().into_iter().collect(),
        }
    }
}

/// What was answered to this call before, if it was made before.
///
/// # Errors
/// [`Class::Conflict`] when the key was used with another request.
pub(crate) async fn find(executor: impl PgExecutor<'_>, call: &CallKey) -> Result<Option<Outcome>> {
    let found = sqlx::query!(
        "SELECT request_hash, status_code, reply FROM idempotency_keys
         WHERE principal = $1 AND operation = $2 AND idempotency_key = $3",
        call.principal,
        call.operation,
        call.key,
    )
    .fetch_optional(executor)
    .await?;
    let Some(found) = found else { return Ok(None) };
    if found.request_hash != call.request_hash {
        let message = format!("idempotency key {} was used with another request; allowed: a new key", call.key);
        return Err(Error::new(Class::Conflict, message));
    }
    if found.status_code == 0 {
        return Ok(Some(Ok(found.reply)));
    }
    let status = RpcStatus::decode(&found.reply[..]).map_err(Error::internal)?;
    let refusal = Error::new(Class::Refused, status.message).with_any(status.details.into_iter().next());
    Ok(Some(Err(refusal)))
}

/// Writes a call's receipt. False when another run of the same call was first: this transaction must be rolled back.
pub(crate) async fn record(tx: &mut Tx, call: &CallKey, outcome: &Outcome) -> Result<bool> {
    let (status_code, reply) = match outcome {
        Ok(reply) => (0_i16, reply.clone()),
        Err(refusal) => {
            (i16::try_from(refusal.class().grpc_code()).unwrap_or(i16::MAX), RpcStatus::of(refusal).encode_to_vec())
        }
    };
    let written = sqlx::query!(
        "INSERT INTO idempotency_keys (principal, operation, idempotency_key, request_hash, status_code, reply)
         VALUES ($1, $2, $3, $4, $5, $6)",
        call.principal,
        call.operation,
        call.key,
        &call.request_hash[..],
        status_code,
        reply,
    )
    .execute(tx.conn())
    .await;
    first(written, "idempotency_keys_pkey")
}

/// Whether the consumer's effect of this message is committed already.
pub(crate) async fn is_in_inbox(tx: &mut Tx, consumer: &str, message_id: Uuid) -> Result<bool> {
    let found = sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT 1 FROM inbox WHERE consumer = $1 AND message_id = $2) AS "found!""#,
        consumer,
        message_id,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(found)
}

/// Writes a message's receipt. False when another delivery was first: this transaction must be rolled back.
pub(crate) async fn put_in_inbox(tx: &mut Tx, consumer: &str, message_id: Uuid) -> Result<bool> {
    let written = sqlx::query!("INSERT INTO inbox (consumer, message_id) VALUES ($1, $2)", consumer, message_id)
        .execute(tx.conn())
        .await;
    first(written, "inbox_pkey")
}

/// Locks a schedule's row: its newest tick, and the database's time. None while another replica holds it. A schedule seen
/// for the first time begins now.
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

fn first(written: Result<sqlx::postgres::PgQueryResult, sqlx::Error>, constraint: &str) -> Result<bool> {
    match written {
        Ok(_) => Ok(true),
        Err(error) if violates(&error, constraint) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
