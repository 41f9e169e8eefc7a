//! Parked messages: from the broker's parking queue into a table, where operators list them, and back to the queue of
//! the consumer that parked them.
//!
//! What is on the parking queue is acknowledged after its row is committed. Each parking has an id of its own, so that
//! a second delivery changes nothing. A retry is published before its row is deleted: a message that went out twice is
//! found in its consumer's inbox.
use super::{
    channel::{Ended, leave},
    delivery::{self, ParkedDelivery},
};
use crate::{
    Error, Io, Pool, Result, Runtime, Tx,
    base::{backoff, keyset},
    rabbitmq::{self, Channel, Consuming},
    triggers::job::Attempt,
};
use chrono::{DateTime, Utc};
use lapin::Connection;
use std::{sync::Arc, time::Duration};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

/// What the broker, and whoever asks there, calls it.
const NAME: &str = "parking";
/// Messages on their way into the table at a time.
const PREFETCH: u16 = 64;
/// Pauses grow from the first to the second while the broker or the database does not answer.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// The most that one call retries or discards.
pub const MAX_SELECTED: i64 = 1_000;

/// A parked message.
#[derive(Debug, Clone)]
pub struct Parked {
    /// This parking of it.
    pub parked_id: Uuid,
    /// The consumer that could not handle it.
    pub handler: String,
    /// The AMQP message id, as it was.
    pub message_id: String,
    /// The protobuf message's full name.
    pub message_type: String,
    /// As it was first published.
    pub routing_key: String,
    /// Which request it belongs to.
    pub correlation_id: String,
    /// Of the last try.
    pub error: String,
    /// When it was moved to the table.
    pub parked_at: DateTime<Utc>,
    /// Set while a retry is on its way.
    pub retry_at: Option<DateTime<Utc>>,
    /// Its size.
    pub payload_bytes: i64,
}

/// Which parked messages.
#[derive(Debug, Clone, serde::Serialize)]
pub enum Selection {
    /// These.
    Ids(Vec<Uuid>),
    /// The oldest of this consumer's, up to [`MAX_SELECTED`].
    Of(String),
}

/// Moves parked messages to the table until the drain.
pub(crate) async fn run(runtime: Runtime) {
    let tasks = runtime.tasks().clone();
    let mut failures = 0;
    while !tasks.draining().is_cancelled() {
        let Err(error) = session(&runtime, &mut failures).await else { return };
        failures += 1;
        tracing::warn!(error = format!("{error:#}"), "parked messages stay on the broker for now");
        tasks.pause(backoff::pause(failures, PAUSES.0, PAUSES.1)).await;
    }
}

/// One connection's life. Ok when it ended because of the drain.
async fn session(runtime: &Runtime, failures: &mut u32) -> anyhow::Result<()> {
    let connection = Arc::new(runtime.broker().connect(NAME).await?);
    rabbitmq::then_close(&connection, over_connection(runtime, failures, &connection)).await
}

async fn over_connection(runtime: &Runtime, failures: &mut u32, connection: &Arc<Connection>) -> anyhow::Result<()> {
    let channel = Channel::open(connection, NAME).await?;
    runtime.topology().declare_own_queue(&channel, &runtime.topology().parking_queue()).await?;
    channel.close("declared").await.ok();
    while over_channel(runtime, connection, failures).await? == Ended::Idle {}
    Ok(())
}

/// One channel's life.
async fn over_channel(runtime: &Runtime, connection: &Arc<Connection>, failures: &mut u32) -> anyhow::Result<Ended> {
    let channel = Channel::open(connection, NAME).await?;
    channel.prefetch(PREFETCH).await?;
    let queue = runtime.topology().parking_queue();
    let consumer = channel.consume(&queue, NAME, false).await?;
    let mut deliveries = Consuming::new(consumer, connection.clone(), runtime.topology().clone(), queue);
    let ended = loop {
        let delivery = tokio::select! {
            biased;
            () = runtime.tasks().draining().cancelled() => break Ended::Drain,
            delivery = deliveries.next(true) => delivery?,
        };
        let Some(delivery) = delivery else { break Ended::Idle };
        // What can't be written stays unacknowledged, and goes back to the queue with this connection.
        keep(&runtime.pools().bookkeeping, &ParkedDelivery::of(&delivery)).await?;
        rabbitmq::acknowledge(NAME, &delivery, false).await?;
        *failures = 0;
    };
    leave(&channel, NAME, &TaskTracker::new()).await;
    Ok(ended)
}

async fn keep(pool: &Pool, parked: &ParkedDelivery) -> Result<()> {
    sqlx::query!(
        "INSERT INTO parked_messages (parked_id, handler, message_id, message_type, routing_key, correlation_id,
                                      traceparent, error, payload, unknown_to)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (parked_id) DO NOTHING",
        parked.parked_id,
        parked.handler,
        parked.message_id,
        parked.message_type,
        parked.routing_key,
        parked.correlation_id,
        parked.traceparent,
        parked.error,
        parked.payload,
        &parked.unknown_to,
    )
    .execute(pool)
    .await?;
    Ok(())
}

/// Which of these are not parked.
pub async fn missing(tx: &mut Tx, selection: &Selection) -> Result<Vec<Uuid>> {
    let Selection::Ids(ids) = selection else { return Ok(Vec::new()) };
    let missing = sqlx::query_scalar!(
        r#"SELECT id AS "id!" FROM unnest($1::uuid[]) AS asked (id)
           WHERE NOT EXISTS (SELECT FROM parked_messages p WHERE p.parked_id = asked.id)"#,
        ids,
    );
    Ok(missing.fetch_all(tx.conn()).await?)
}

/// Parked messages, the newest first, of one consumer or of all, after the one named.
pub async fn list(
    reads: &Pool,
    handler: Option<&str>,
    after: Option<(DateTime<Utc>, Uuid)>,
    limit: i64,
) -> Result<Vec<Parked>> {
    let (after_at, after_id) = after.unwrap_or(keyset::END);
    // Two statements, each with an index of its own: one for both would walk the other's.
    let Some(handler) = handler else {
        let rows = sqlx::query_as!(
            Parked,
            r#"SELECT parked_id, handler, message_id, message_type, routing_key, correlation_id, error, parked_at,
                      retry_at, octet_length(payload)::bigint AS "payload_bytes!"
               FROM parked_messages WHERE (parked_at, parked_id) < ($1, $2)
               ORDER BY parked_at DESC, parked_id DESC LIMIT $3"#,
            after_at,
            after_id,
            limit,
        );
        return Ok(rows.fetch_all(reads).await?);
    };
    let rows = sqlx::query_as!(
        Parked,
        r#"SELECT parked_id, handler, message_id, message_type, routing_key, correlation_id, error, parked_at, retry_at,
                  octet_length(payload)::bigint AS "payload_bytes!"
           FROM parked_messages WHERE handler = $1 AND (parked_at, parked_id) < ($2, $3)
           ORDER BY parked_at DESC, parked_id DESC LIMIT $4"#,
        handler,
        after_at,
        after_id,
        limit,
    );
    Ok(rows.fetch_all(reads).await?)
}

/// One parked message and its payload.
pub async fn get(reads: &Pool, parked_id: Uuid) -> Result<Option<(Parked, Vec<u8>)>> {
    let row = sqlx::query!(
        "SELECT parked_id, handler, message_id, message_type, routing_key, correlation_id, error, parked_at, retry_at,
                payload
         FROM parked_messages WHERE parked_id = $1",
        parked_id,
    )
    .fetch_optional(reads)
    .await?;
    Ok(row.map(|row| {
        let parked = Parked {
            parked_id: row.parked_id,
            handler: row.handler,
            message_id: row.message_id,
            message_type: row.message_type,
            routing_key: row.routing_key,
            correlation_id: row.correlation_id,
            error: row.error,
            parked_at: row.parked_at,
            retry_at: row.retry_at,
            payload_bytes: row.payload.len() as i64,
        };
        (parked, row.payload)
    }))
}

/// Marks parked messages as on their way back, and gives them: enqueue a job for each, whose handler calls
/// [`send_back`]. Of a consumer's, those that have been on their way for less than a minute are left out.
pub async fn mark_for_retry(tx: &mut Tx, selection: &Selection) -> Result<Vec<Uuid>> {
    let (ids, handler) = parts(selection);
    let marked = sqlx::query_scalar!(
        "UPDATE parked_messages SET retry_at = clock_timestamp()
         WHERE parked_id IN (
           SELECT unnest($1::uuid[])
           UNION ALL (
             SELECT parked_id FROM parked_messages
             WHERE handler = $2 AND (retry_at IS NULL OR retry_at < clock_timestamp() - interval '1 minute')
             ORDER BY parked_at, parked_id LIMIT $3))
         RETURNING parked_id",
        ids,
        handler,
        MAX_SELECTED,
    );
    Ok(marked.fetch_all(tx.conn()).await?)
}

/// Deletes parked messages for good. Gives how many there were.
pub async fn discard(tx: &mut Tx, selection: &Selection) -> Result<u64> {
    let (ids, handler) = parts(selection);
    let discarded = sqlx::query!(
        "DELETE FROM parked_messages
         WHERE parked_id IN (
           SELECT unnest($1::uuid[])
           UNION ALL (
             SELECT parked_id FROM parked_messages WHERE handler = $2 ORDER BY parked_at, parked_id LIMIT $3))",
        ids,
        handler,
        MAX_SELECTED,
    );
    Ok(discarded.execute(tx.conn()).await?.rows_affected())
}

/// Forgets parked messages older than `older_than`, up to `limit`.
pub async fn forget(tx: &mut Tx, older_than: Duration, limit: i64) -> Result<u64> {
    let forgotten = sqlx::query!(
        "DELETE FROM parked_messages WHERE parked_id IN (
           SELECT parked_id FROM parked_messages WHERE parked_at < now() - make_interval(secs => $1)
           ORDER BY parked_at LIMIT $2)",
        older_than.as_secs_f64(),
        limit,
    );
    Ok(forgotten.execute(tx.conn()).await?.rows_affected())
}

fn parts(selection: &Selection) -> (&[Uuid], Option<&str>) {
    match selection {
        Selection::Ids(ids) => (ids, None),
        Selection::Of(handler) => (&[], Some(handler)),
    }
}

/// Publishes a parked message to the queue of the consumer that parked it, and deletes its row together with the job
/// that does this. A message that is gone is done.
pub async fn send_back(attempt: &Attempt, parked_id: Uuid) -> Result<()> {
    let io: &Io = attempt;
    let row = sqlx::query!(
        "SELECT handler, message_id, message_type, routing_key, correlation_id, traceparent, payload
         FROM parked_messages WHERE parked_id = $1",
        parked_id,
    )
    .fetch_optional(io.reads())
    .await?;
    if let Some(row) = row {
        let message = delivery::returning(
            (row.message_id, row.routing_key, row.message_type),
            (row.correlation_id, row.traceparent),
            row.payload,
        );
        let sent = io.publisher().send_to(&row.handler, message).await;
        sent.map_err(|error| Error::new(crate::Class::Unavailable, format!("it can't be sent back: {error}")))?;
    }
    let mut tx = io.begin().await?;
    sqlx::query!("DELETE FROM parked_messages WHERE parked_id = $1", parked_id).execute(tx.conn()).await?;
    attempt.complete(tx).await
}
