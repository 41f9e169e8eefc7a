//! Jobs of the crate sqlxmq beside handlers: a team that has some can move them over one by one.
//!
//! They run as they are, functions under `#[sqlxmq::job]`, by the crate's own runner on the schema that both share. It
//! claims whatever its channels hold, and an attempt of a job that it does not know is burned; so its channels are its
//! own, and none is the kind of a handler. It knows no drain and spawns its jobs bare: here the drain waits for them.
//! And after a database that was gone for long it would wait for longer still: it is started anew.
#![expect(clippy::disallowed_types, reason = "sqlxmq takes no other pool")]
use crate::{
    Runtime,
    base::{
        backoff,
        spec::{PoolKind, Spec, Trigger},
    },
    postgres::State,
};
use opentelemetry::KeyValue;
use sqlx::PgPool;
use sqlxmq::{JobRegistry, JobRunnerHandle};
use std::time::Duration;

/// Pauses before the runner is started again that could not be.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));
/// Interval at which it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Interval at which those that are still running are counted in a drain.
const WAIT: Duration = Duration::from_millis(20);

/// Jobs of the crate sqlxmq that an application brings along.
pub trait Jobs: Send + Sync + 'static {
    /// Name, channels ([`Trigger::Sqlxmq`]) and how many run at once in a process.
    const SPEC: &'static Spec;

    /// The jobs, with their context. The connections are those of this process's jobs. Its handler of errors is
    /// replaced: they are logged and counted as those of others.
    fn registry(pool: &PgPool) -> JobRegistry;
}

/// The way to make the registry.
pub(crate) type ErasedRegistry = fn(&PgPool) -> JobRegistry;

/// Runs them until the drain, and lets those that have begun come to their end.
pub(crate) async fn run(runtime: Runtime, spec: &'static Spec, registry: ErasedRegistry) {
    let (mut runners, mut failures) = (Vec::new(), 0);
    let gauge = runtime.metrics().gauge("gavel_sqlxmq_jobs_running", "Jobs of the crate sqlxmq that run here");
    let draining = runtime.tasks().draining().clone();
    while !draining.is_cancelled() {
        match start(&runtime, spec, registry).await {
            Ok(runner) => {
                failures = 0;
                runners.push(runner);
                let is_lost = async { until_lost(&runtime, &mut runners, |n| gauge.record(n, &labels(spec))).await };
                tokio::select! {
                    () = draining.cancelled() => {}
                    () = is_lost => tracing::info!(handler = spec.name, "the database is back: its runner starts anew"),
                }
                if let Some(runner) = runners.last_mut() {
                    runner.stop().await;
                }
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(handler = spec.name, %error, "the runner of the crate sqlxmq can't be started yet");
                runtime.tasks().pause(backoff::pause(failures, PAUSES.0, PAUSES.1)).await;
            }
        }
    }
    while running(&runners) > 0 {
        tokio::time::sleep(WAIT).await;
    }
}

fn labels(spec: &Spec) -> [KeyValue; 1] {
    [KeyValue::new("handler", spec.name)]
}

async fn start(
    runtime: &Runtime,
    spec: &'static Spec,
    registry: ErasedRegistry,
) -> Result<JobRunnerHandle, sqlx::Error> {
    let pool = runtime.pools().of(PoolKind::Jobs).inner();
    let mut jobs = registry(pool);
    let own = runtime.clone();
    jobs.set_error_handler(move |job, error| {
        tracing::error!(handler = spec.name, job, error = %error, "a job of the crate sqlxmq failed");
        let metrics = own.metrics();
        metrics.end(&metrics.begin(spec.name, spec.trigger.kind()), "internal");
    });
    let Trigger::Sqlxmq(channels) = spec.trigger else { unreachable!("checked at the start") };
    let most = spec.limits.concurrency.max(1);
    let mut options = jobs.runner(pool);
    options.set_channel_names(channels).set_concurrency(most.div_ceil(2), most);
    options.run().await
}

/// Until the database was gone and is there again.
async fn until_lost(runtime: &Runtime, runners: &mut Vec<JobRunnerHandle>, count: impl Fn(u64)) {
    let mut was_gone = false;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        // Those before the newest are kept for what they still run.
        let newest = runners.len().saturating_sub(1);
        let mut place = 0;
        runners.retain(|runner| {
            place += 1;
            place > newest || runner.num_running_jobs() > 0
        });
        count(running(runners) as u64);
        match runtime.pools().connector.state() {
            State::Down(_) => was_gone = true,
            State::Up if was_gone => return,
            State::Up | State::Busy(_) => {}
        }
    }
}

fn running(runners: &[JobRunnerHandle]) -> usize {
    runners.iter().map(JobRunnerHandle::num_running_jobs).sum()
}
