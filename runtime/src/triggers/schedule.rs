//! Schedules: each tick once across all replicas.
//!
//! Every replica wakes at each tick and locks the schedule's row; one gets it. Taking the tick and the handler's effect
//! are one transaction, so a tick whose handler failed, or whose worker died, is still there to be taken again.
use crate::{
    Invocation, Result, Runtime, Tx,
    base::{
        backoff, clock,
        cron::{CronTicks, Due},
        spec::{PoolKind, Spec, Trigger},
    },
    context::invoke::invoke,
    postgres::{receipt, tx::bounded},
};
use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use std::time::Duration;

pub use crate::base::cron::{CatchUp, CronSchedule};

/// A tick that failed, or that another replica is running, is looked at again after this long.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The longest sleep: a clock that was set is noticed after this.
const MAX_SLEEP: Duration = Duration::from_mins(1);

/// One tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// When it was due: long ago, where a missed tick is caught up on.
    pub due_at: DateTime<Utc>,
}

/// Something done regularly, with pure database effects.
pub trait TxHandler: Send + Sync + 'static {
    /// Name, cron schedule and limits.
    const SPEC: &'static Spec;

    /// Does it.
    fn handle(tx: &mut Tx, tick: Tick) -> impl Future<Output = Result<()>> + Send;
}

/// A handler with its types forgotten, so that the loop is compiled once.
pub(crate) type ErasedSchedule = for<'a> fn(&'a mut Tx, Tick) -> BoxFuture<'a, Result<()>>;

pub(crate) fn erased<H: TxHandler>(tx: &mut Tx, tick: Tick) -> BoxFuture<'_, Result<()>> {
    Box::pin(H::handle(tx, tick))
}

/// What looking found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Looked {
    /// Nothing is due.
    Idle,
    /// A tick ran or was passed over: there may be another.
    Moved,
    /// Another replica has it.
    Taken,
}

/// Ticks until the drain.
pub(crate) async fn run(runtime: Runtime, spec: &'static Spec, handler: ErasedSchedule) {
    let Trigger::Schedule(cron) = spec.trigger else { return };
    let Ok(ticks) = cron.parse() else { return };
    let tasks = runtime.tasks().clone();
    let mut pause = Duration::ZERO;
    while tasks.pause(pause).await {
        pause = match look(&runtime, spec, handler, &ticks).await {
            Ok(Looked::Moved) => Duration::ZERO,
            Ok(Looked::Idle) => until_next(&ticks),
            Ok(Looked::Taken) => LOOK_AGAIN,
            Err(error) => {
                tracing::warn!(handler = spec.name, %error, "the tick will be tried again");
                backoff::jitter(LOOK_AGAIN)
            }
        };
    }
}

/// Just past the next tick: this process's clock only decides when to ask, the database's whether.
fn until_next(ticks: &CronTicks) -> Duration {
    let now = clock::wall();
    let left = ticks.next_after(now).and_then(|next| (next - now).to_std().ok()).unwrap_or(MAX_SLEEP);
    left.min(MAX_SLEEP) + backoff::jitter(Duration::from_millis(50))
}

/// Takes the tick that is due, if it is still to be had. Only a tick that runs is an invocation.
async fn look(runtime: &Runtime, spec: &'static Spec, handler: ErasedSchedule, ticks: &CronTicks) -> Result<Looked> {
    let invocation = Invocation::start(spec.name, spec.limits.timeout);
    let mut tx = Tx::begin(runtime.pools(), PoolKind::Jobs, invocation.clone()).await?;
    let locked = match bounded(invocation.remaining(), receipt::lock_schedule(&mut tx, spec.name)).await {
        Ok(locked) => locked,
        Err(error) => return Err(tx.fail(error).await),
    };
    let Some((last, now)) = locked else {
        tx.rollback().await;
        return Ok(Looked::Taken);
    };
    match ticks.due(last, now) {
        Due::Nothing => tx.commit().await.map(|()| Looked::Idle),
        Due::Skip(tick_at) => {
            receipt::record_tick(&mut tx, spec.name, tick_at).await?;
            tracing::info!(handler = spec.name, until = %tick_at, "missed ticks are passed over");
            tx.commit().await.map(|()| Looked::Moved)
        }
        Due::Run(due_at) => {
            let run = run_tick(spec.name, handler, tx, Tick { due_at });
            invoke(runtime, spec, invocation, run).await.map(|()| Looked::Moved)
        }
    }
}

async fn run_tick(name: &'static str, handler: ErasedSchedule, mut tx: Tx, tick: Tick) -> Result<()> {
    let left = tx.invocation().remaining();
    let work = async {
        handler(&mut tx, tick).await?;
        // The receipt comes last: in a transaction that a swallowed error has aborted it fails, where COMMIT would not.
        receipt::record_tick(&mut tx, name, tick.due_at).await
    };
    match bounded(left, work).await {
        Ok(()) => {}
        Err(error) => return Err(tx.fail(error).await),
    }
    crate::base::failpoint::hit(name, "before_commit");
    tx.commit().await
}
