//! Jobs on PostgreSQL, on the schema of the crate sqlxmq.
//!
//! Enqueueing is sqlxmq's own, in the caller's transaction. Running is ours: a job is claimed with `FOR UPDATE SKIP
//! LOCKED`, run and deleted in *one* transaction, so the row's lock is both lease and fence. A worker that dies frees it
//! at once, and no other can have run it meanwhile. A failed try is counted in a second transaction; a job out of tries
//! moves to `dead_jobs` with its error. Only registered kinds are claimed: those of a newer version wait for it.

mod queue;
mod run;

pub(crate) use run::run;

use crate::{Error, Invocation, Result, Tx, spec::Spec};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sqlx::PgConnection;
use sqlxmq::JobBuilder;
use std::time::Duration;

/// The first pause after a failed try; it doubles up to [`MAX_BACKOFF`].
pub(crate) const BASE_BACKOFF: Duration = Duration::from_millis(200);
/// The longest pause between tries.
pub(crate) const MAX_BACKOFF: Duration = Duration::from_mins(1);

/// A kind of job, as whoever enqueues it knows it: its arguments, kept as JSON. Fields are only ever added.
pub trait Job: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The kind: the name of the handler that runs it. Never renamed.
    const KIND: &'static str;
    /// Tries after the first.
    const RETRIES: u32;
}

/// Runs one kind of job, with pure database effects.
pub trait TxHandler: Send + Sync + 'static {
    /// Name and limits. The name is the job's kind and the retries are the job's.
    const SPEC: &'static Spec;
    /// What it runs.
    type Job: Job;

    /// Does it. Runs again after a failure.
    fn handle(tx: &mut Tx, job: &Self::Job) -> impl Future<Output = Result<()>> + Send;
}

/// A handler with its types forgotten, so that the loops are compiled once.
pub(crate) type Erased = for<'a> fn(&'a mut Tx, serde_json::Value) -> BoxFuture<'a, Result<()>>;

pub(crate) fn erased<H: TxHandler>(tx: &mut Tx, args: serde_json::Value) -> BoxFuture<'_, Result<()>> {
    Box::pin(async move {
        let job: H::Job = serde_json::from_value(args)
            .map_err(|error| Error::invalid(format!("the job's arguments can't be read: {error}")))?;
        H::handle(tx, &job).await
    })
}

/// What travels beside the arguments, in the payload's bytes: a producer that knows nothing of it leaves it out.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Headers {
    correlation_id: Option<String>,
    traceparent: Option<String>,
}

pub(crate) async fn enqueue<J: Job>(
    conn: &mut PgConnection,
    invocation: &Invocation,
    args: &J,
    delay: Duration,
) -> Result<()> {
    let headers = Headers {
        correlation_id: Some(invocation.correlation_id.clone()),
        traceparent: Some(invocation.traceparent.clone()),
    };
    let headers = serde_json::to_vec(&headers).map_err(Error::internal)?;
    let mut builder = JobBuilder::new_with_id(crate::ids::ordered(), J::KIND);
    builder
        .set_channel_name(J::KIND)
        .set_retries(J::RETRIES)
        .set_retry_backoff(BASE_BACKOFF)
        .set_delay(delay)
        .set_raw_bytes(&headers)
        .set_json(args)
        .map_err(Error::internal)?;
    builder.spawn(conn).await?;
    Ok(())
}
