//! Messages that told of something a version did not know: once a worker with other contracts lives, it handles them
//! itself, from the table, as if they had been delivered once more. While old and new workers share a queue, one that
//! went back there might meet an old one again.
use super::{
    delivery::{Received, why},
    handler::{Consumer, ErasedConsumer},
};
use crate::{
    Result, Runtime,
    base::{error::Disposition, spec::Spec},
};
use std::time::Duration;
use uuid::Uuid;

/// Interval at which such messages are looked for.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Messages taken at a time.
const BATCH: i64 = 64;

/// Looks for messages of these consumers until the drain.
pub(crate) async fn run(runtime: Runtime, consumers: Vec<(&'static Spec, ErasedConsumer)>) {
    let consumers: Vec<_> = consumers.into_iter().map(|(spec, handler)| Consumer { spec, handler }).collect();
    loop {
        if let Err(error) = look(&runtime, &consumers).await {
            tracing::warn!(%error, "messages that were unknown to other versions stay parked for now");
        }
        if !runtime.tasks().pause(LOOK_EVERY).await {
            return;
        }
    }
}

async fn look(runtime: &Runtime, consumers: &[Consumer]) -> Result<()> {
    let names: Vec<_> = consumers.iter().map(|consumer| consumer.spec.name.to_owned()).collect();
    // Whoever takes some and dies leaves them to the next a minute later.
    let rows = sqlx::query!(
        "UPDATE parked_messages SET retry_at = clock_timestamp()
         WHERE parked_id IN (
           SELECT parked_id FROM parked_messages
           WHERE handler = ANY($1) AND unknown_to <> '{}' AND NOT unknown_to @> ARRAY[$2]
             AND (retry_at IS NULL OR retry_at < clock_timestamp() - interval '1 minute')
           ORDER BY parked_at LIMIT $3 FOR UPDATE SKIP LOCKED)
         RETURNING parked_id, handler, message_id, message_type, routing_key, correlation_id, traceparent, payload",
        &names,
        runtime.contracts(),
        BATCH,
    );
    for row in rows.fetch_all(&runtime.pools().bookkeeping).await? {
        let Some(consumer) = consumers.iter().find(|consumer| consumer.spec.name == row.handler) else { continue };
        let received = Received::of_parked(
            (&row.message_id, row.routing_key, row.message_type),
            (row.correlation_id, row.traceparent),
            row.payload,
        );
        let handled = consumer.consume(runtime, received).await;
        settle(runtime, row.parked_id, handled).await?;
        if runtime.tasks().draining().is_cancelled() {
            return Ok(());
        }
    }
    Ok(())
}

/// Handled, it is gone: a second delivery is found in the inbox. Otherwise it stays parked, for what is to blame now.
async fn settle(runtime: &Runtime, parked_id: Uuid, handled: Result<()>) -> Result<()> {
    let pool = &runtime.pools().bookkeeping;
    let error = match handled {
        Ok(()) => {
            sqlx::query!("DELETE FROM parked_messages WHERE parked_id = $1", parked_id).execute(pool).await?;
            tracing::info!(%parked_id, "a message that another version did not know is handled");
            return Ok(());
        }
        Err(error) => error,
    };
    match error.class().disposition() {
        // In a minute.
        Disposition::RetryUntilItWorks | Disposition::RetryThenGiveUp => {}
        Disposition::GiveUp => {
            let still_unknown: Option<&str> = error.is_unknown().then(|| runtime.contracts());
            sqlx::query!(
                "UPDATE parked_messages
                 SET retry_at = NULL, error = $2,
                     unknown_to = CASE WHEN $3::text IS NULL THEN '{}' ELSE unknown_to || $3 END
                 WHERE parked_id = $1",
                parked_id,
                why(&error),
                still_unknown,
            )
            .execute(pool)
            .await?;
        }
    }
    Ok(())
}
