//! Schedules: once per interval across all replicas.
//!
//! Every replica wakes shortly after each multiple of the interval and tries to take that tick; taking it and the
//! handler's effect are one transaction, so a tick whose handler failed is still there to be taken again.
use crate::{
    Error, Invocation, Result, Runtime, Tx, backoff, clock,
    invoke::invoke,
    receipt,
    spec::{Spec, Trigger},
    tx::bounded,
};
use futures_util::future::BoxFuture;
use std::time::Duration;

/// A tick that failed is tried again after this long.
const RETRY: Duration = Duration::from_secs(1);

/// Something done regularly, with pure database effects.
pub trait TxHandler: Send + Sync + 'static {
    /// Name, interval and limits.
    const SPEC: &'static Spec;

    /// Does it.
    fn handle(tx: &mut Tx) -> impl Future<Output = Result<()>> + Send;
}

/// A handler with its types forgotten, so that the loop is compiled once.
pub(crate) type Erased = for<'a> fn(&'a mut Tx) -> BoxFuture<'a, Result<()>>;

pub(crate) fn erased<H: TxHandler>(tx: &mut Tx) -> BoxFuture<'_, Result<()>> {
    Box::pin(H::handle(tx))
}

/// Ticks until the drain.
pub(crate) async fn run(runtime: Runtime, spec: &'static Spec, handler: Erased) {
    let Trigger::Schedule(every) = spec.trigger else { return };
    let tasks = runtime.tasks().clone();
    let mut pause = Duration::ZERO;
    while tasks.pause(pause).await {
        pause = match tick(&runtime, spec, handler, every).await {
            Ok(()) => until_next(every),
            Err(error) => {
                tracing::warn!(handler = spec.name, %error, "the tick will be tried again");
                backoff::jitter(RETRY)
            }
        };
    }
}

/// Just past the next multiple of the interval: this process's clock only decides when to ask, the database's whether.
fn until_next(every: Duration) -> Duration {
    let now_ms = u128::try_from(clock::wall().timestamp_millis()).unwrap_or_default();
    let into_ms = now_ms % every.as_millis().max(1);
    let left = every.saturating_sub(Duration::from_millis(u64::try_from(into_ms).unwrap_or_default()));
    left + backoff::jitter(Duration::from_millis(50))
}

/// Runs the handler if the tick is still to be had. Only a tick that was taken is an invocation.
async fn tick(runtime: &Runtime, spec: &'static Spec, handler: Erased, every: Duration) -> Result<()> {
    let invocation = Invocation::start(spec.limits.timeout);
    let mut tx = Tx::begin(&runtime.pools().transactions, invocation.clone()).await?;
    let taken = receipt::take_tick(&mut tx, spec.name, every.as_secs_f64());
    match bounded(invocation.remaining(), taken).await {
        Ok(true) => {}
        not_taken => {
            tx.rollback().await;
            return not_taken.map(drop);
        }
    }
    invoke(runtime, spec, invocation, async move {
        let left = tx.invocation().remaining();
        if let Err(error) = bounded(left, handler(&mut tx)).await {
            return Err(tx.fail(error).await);
        }
        ensure_alive(&mut tx).await?;
        tx.commit().await
    })
    .await
}

/// The receipt was written first, so a swallowed error would go unnoticed by COMMIT: any statement notices.
async fn ensure_alive(tx: &mut Tx) -> Result<()> {
    sqlx::query("SELECT 1").execute(tx.conn()).await.map(drop).map_err(Error::from)
}
