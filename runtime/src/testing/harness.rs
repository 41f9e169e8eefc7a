//! An application whose loops stand still until a test moves them.
use super::Worker;
use crate::{
    App, Invocation, Io, Result, Runtime, Tx,
    base::{batch::Verdicts, spec::PoolKind},
    config::Backends,
    context::runtime::Role,
    postgres::{receipt, tx::bounded},
    queue::{Enqueued, Job, Options, inspect},
    triggers::{
        job::{self, Verdict},
        message,
        schedule::{self, Tick},
    },
};
use chrono::{DateTime, Utc};
use std::time::Duration;
use uuid::Uuid;

/// A lease in a harness: short, since tests wait for it to end.
const LEASE: Duration = Duration::from_secs(1);
/// Time for which a test's own step may take.
const TIMEOUT: Duration = Duration::from_mins(1);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(5);
/// What has not come to pass by then never will.
const PATIENCE: Duration = Duration::from_mins(1);

/// An application on a database of its own, for a test. Nothing runs by itself.
pub struct Harness {
    pub(super) app: fn() -> App,
    pub(super) backends: Backends,
    pub(super) runtime: Runtime,
}

impl Harness {
    /// An application that runs on these servers; its workers' leases hold for one second.
    ///
    /// # Errors
    /// When a registration is invalid or the database's URL can't be read.
    pub fn new(app: fn() -> App, backends: &Backends) -> anyhow::Result<Self> {
        let backends = Backends { lease: LEASE, ..backends.clone() };
        let runtime = app().checked()?.runtime(&backends, "harness", Role::Worker)?;
        Ok(Self { app, backends, runtime })
    }

    /// The same with other leases.
    #[must_use]
    pub fn with_lease(self, lease: Duration) -> Self {
        Self { backends: Backends { lease, ..self.backends }, ..self }
    }

    /// Returns what an `Io` handler gets.
    pub fn io(&self) -> Io {
        Io::new(&self.runtime, PoolKind::Jobs, Invocation::start("test", TIMEOUT))
    }

    pub(super) async fn begin(&self) -> Result<Tx> {
        Tx::begin(self.runtime.pools(), PoolKind::Jobs, Invocation::start("test", TIMEOUT)).await
    }

    /// Enqueues a job, in a transaction of its own.
    pub async fn enqueue<J: Job>(&self, job: &J, options: impl Into<Options>) -> Result<Enqueued> {
        let mut tx = self.begin().await?;
        let enqueued = tx.enqueue(job, options).await?;
        tx.commit().await?;
        Ok(enqueued)
    }

    /// Runs one `Tx` handler by hand: what it did is committed when it is done or snoozed, and rolled back otherwise.
    ///
    /// # Errors
    /// The handler's own.
    pub async fn run_tx<H: job::TxHandler>(&self, job: &H::Job) -> Result<Verdict> {
        let mut tx =
            Tx::begin(self.runtime.pools(), PoolKind::Jobs, Invocation::start(H::SPEC.name, H::SPEC.limits.timeout))
                .await?;
        match bounded(H::SPEC.limits.timeout, H::handle(&mut tx, job)).await {
            Ok(verdict @ (Verdict::Done | Verdict::Snooze(_))) => tx.commit().await.map(|()| verdict),
            Ok(verdict) => {
                tx.rollback().await;
                Ok(verdict)
            }
            Err(error) => Err(tx.fail(error).await),
        }
    }

    /// Gives one message to a consumer, as a delivery with that id would. False when it was handled before.
    ///
    /// # Errors
    /// The handler's own: then nothing stays.
    pub async fn deliver<H: message::TxHandler>(&self, message_id: Uuid, message: &H::Message) -> Result<bool> {
        let mut tx =
            Tx::begin(self.runtime.pools(), PoolKind::Jobs, Invocation::start(H::SPEC.name, H::SPEC.limits.timeout))
                .await?;
        let work = async {
            let new = receipt::in_inbox(&mut tx, H::SPEC.name, &[message_id]).await?.is_empty();
            if new {
                H::handle(&mut tx, message).await?;
            }
            Ok(new && receipt::put_in_inbox(&mut tx, H::SPEC.name, &[message_id]).await?)
        };
        match bounded(H::SPEC.limits.timeout, work).await {
            Ok(true) => tx.commit().await.map(|()| true),
            Ok(false) => {
                tx.rollback().await;
                Ok(false)
            }
            Err(error) => Err(tx.fail(error).await),
        }
    }

    /// Gives messages to a batched consumer, as one batch of deliveries with those ids would be: one verdict each.
    /// Those that were handled before are passed over.
    ///
    /// # Errors
    /// The handler's own: then nothing stays.
    pub async fn deliver_all<H: message::TxBatchHandler>(
        &self,
        messages: &[(Uuid, H::Message)],
    ) -> Result<Verdicts<()>> {
        message::apply_by_hand::<H>(&self.runtime, messages).await
    }

    /// Runs one tick of a schedule by hand.
    ///
    /// # Errors
    /// The handler's own: then nothing stays.
    pub async fn tick<H: schedule::TxHandler>(&self, due_at: DateTime<Utc>) -> Result<()> {
        let mut tx =
            Tx::begin(self.runtime.pools(), PoolKind::Jobs, Invocation::start(H::SPEC.name, H::SPEC.limits.timeout))
                .await?;
        match bounded(H::SPEC.limits.timeout, H::handle(&mut tx, Tick { due_at })).await {
            Ok(()) => tx.commit().await,
            Err(error) => Err(tx.fail(error).await),
        }
    }

    /// Runs every job that is due, those that they enqueue, and the next tries of those that fail, until each is done
    /// or dead; gives those that died meanwhile. What was delayed or snoozed for more than a second stays: see
    /// [`Harness::advance`]. (A conflict with a concurrent transaction puts a job off for less.)
    ///
    /// # Errors
    /// When jobs are still due after a minute, or the database fails.
    pub async fn drain(&self) -> anyhow::Result<Vec<inspect::View>> {
        let since: DateTime<Utc> =
            sqlx::query_scalar("SELECT clock_timestamp()").fetch_one(&self.runtime.pools().reads).await?;
        let worker = Worker::start_jobs((self.app)(), &self.backends)?;
        let drained = self.until("no job is due", || self.is_drained()).await;
        worker.stop(PATIENCE).await?;
        drained?;
        let dead = inspect::dead(self.io().reads(), None, None, 1_000).await?;
        Ok(dead.into_iter().filter(|job| job.at >= since).collect())
    }

    /// Returns whether no job of this application is due, running or on its way to another try.
    pub(super) async fn is_drained(&self) -> anyhow::Result<bool> {
        let kinds: Vec<String> = self.runtime.jobs().kinds().keys().map(|kind| (*kind).to_owned()).collect();
        let left: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM mq_msgs m WHERE m.channel_name = ANY($1)
                            AND (m.attempt_at <= clock_timestamp() + interval '1 s' OR m.tries > 0)
                            AND NOT EXISTS (SELECT FROM job_queues q
                                            WHERE q.kind = m.channel_name AND q.paused_at IS NOT NULL))",
        )
        .bind(kinds)
        .fetch_one(&self.runtime.pools().reads)
        .await?;
        Ok(!left)
    }

    /// Makes every queued job due that much earlier, as if the time had passed.
    pub async fn advance(&self, time: Duration) -> Result<()> {
        let mut tx = self.begin().await?;
        sqlx::query("UPDATE mq_msgs SET attempt_at = attempt_at - make_interval(secs => $1) WHERE lease_token IS NULL")
            .bind(time.as_secs_f64())
            .execute(tx.conn())
            .await?;
        tx.commit().await
    }

    /// Lets every lease run out now, as if its worker had been gone that long.
    pub async fn expire_leases(&self) -> Result<()> {
        let mut tx = self.begin().await?;
        sqlx::query("UPDATE mq_msgs SET leased_until = now() - interval '1 ms' WHERE lease_token IS NOT NULL")
            .execute(tx.conn())
            .await?;
        tx.commit().await
    }

    /// Looks until it is so.
    pub(super) async fn until<F: Future<Output = anyhow::Result<bool>>>(
        &self,
        what: &str,
        look: impl Fn() -> F,
    ) -> anyhow::Result<()> {
        let looking = async {
            while !look().await? {
                tokio::time::sleep(LOOK).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, looking)
            .await
            .unwrap_or_else(|_| anyhow::bail!("after {PATIENCE:?} it is still not so that {what}"))
    }
}
