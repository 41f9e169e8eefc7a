use gavel_runtime::{Result, Tx};
use std::time::Duration;
use uuid::Uuid;

/// An event to publish.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub(super) outbox_id: i64,
    pub(super) event_id: Uuid,
    pub(super) key: String,
    pub(super) routing_key: String,
    pub(super) message_type: String,
    pub(super) payload: Vec<u8>,
    pub(super) correlation_id: String,
    pub(super) traceparent: String,
}

/// Leases shards that have something to publish now, those first that were served longest ago. What waits, and what
/// waits behind it, does not count: it would keep the other shards from their turn.
pub(super) async fn lease_shards(tx: &mut Tx, lease: Uuid, lasts: Duration, most: i64) -> Result<Vec<i16>> {
    let shards = sqlx::query_scalar!(
        "UPDATE outbox_shards SET lease_token = $1, leased_until = clock_timestamp() + make_interval(secs => $2)
         WHERE shard IN (
           SELECT s.shard FROM outbox_shards s
           WHERE s.leased_until <= clock_timestamp()
             AND EXISTS (SELECT 1 FROM outbox o WHERE o.shard = s.shard
                         AND NOT EXISTS (SELECT 1 FROM outbox earlier
                                         WHERE earlier.key = o.key AND earlier.version <= o.version
                                           AND earlier.retry_at > clock_timestamp()))
           ORDER BY s.leased_until
           LIMIT $3
           FOR UPDATE SKIP LOCKED)
         RETURNING shard",
        lease,
        lasts.as_secs_f64(),
        most,
    );
    Ok(shards.fetch_all(tx.conn()).await?)
}

/// The shards' events in order, without those that wait and those behind them. Each shard has its share of the limit,
/// so that a long one does not keep the others from their turn.
pub(super) async fn pending(tx: &mut Tx, shards: &[i16], limit: i64) -> Result<Vec<Pending>> {
    let events = sqlx::query_as!(
        Pending,
        "SELECT e.outbox_id, e.event_id, e.key, e.routing_key, e.message_type, e.payload, e.correlation_id, e.traceparent
         FROM unnest($1::smallint[]) AS s (shard)
         CROSS JOIN LATERAL (
           SELECT outbox_id, event_id, key, routing_key, message_type, payload, correlation_id, traceparent
           FROM outbox o
           WHERE o.shard = s.shard
             AND NOT EXISTS (SELECT 1 FROM outbox earlier
                             WHERE earlier.key = o.key AND earlier.version <= o.version
                               AND earlier.retry_at > clock_timestamp())
           ORDER BY outbox_id
           LIMIT greatest(1, $2::bigint / cardinality($1))) e
         ORDER BY e.outbox_id",
        shards,
        limit,
    );
    Ok(events.fetch_all(tx.conn()).await?)
}

/// Puts a refused event off: one second, doubling to a minute.
pub(super) async fn hold_back(tx: &mut Tx, outbox_id: i64, error: &str) -> Result<()> {
    sqlx::query!(
        "UPDATE outbox SET attempts = attempts + 1, last_error = $2,
                retry_at = clock_timestamp() + make_interval(secs => least(60, power(2, least(attempts, 6))))
         WHERE outbox_id = $1",
        outbox_id,
        error,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Deletes what the broker has confirmed and gives the shards back, unless the lease has run out and another relay
/// holds them by now.
pub(super) async fn delete_and_release(tx: &mut Tx, published: &[i64], shards: &[i16], lease: Uuid) -> Result<()> {
    sqlx::query!(
        "WITH deleted AS (DELETE FROM outbox WHERE outbox_id = ANY($1))
         UPDATE outbox_shards SET lease_token = NULL, leased_until = clock_timestamp()
         WHERE shard = ANY($2) AND lease_token = $3",
        published,
        shards,
        lease,
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}
