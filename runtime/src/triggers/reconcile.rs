//! Reconcilers: what must happen at a time is owed by the data, and not by the job that was to do it.
//!
//! A job can be cancelled, discarded, or lost with a database that was restored. So whoever makes a promise for a time
//! also looks, now and then, for what is past its time, and enqueues what is missing. How much is overdue is a gauge,
//! and a finding of the doctor's.
use super::schedule::{self, Tick};
use crate::{Pool, Result, Runtime, Tx, base::spec::Spec};
use futures_util::future::BoxFuture;
use opentelemetry::{KeyValue, metrics::Meter};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Looks for what is past its time, and enqueues jobs for it.
pub trait Reconciler: Send + Sync + 'static {
    /// Name, cron schedule and limits ([`Trigger::Schedule`](crate::base::spec::Trigger::Schedule)).
    const SPEC: &'static Spec;
    /// What it is that can be overdue, for those who read findings: a plural.
    const WHAT: &'static str;

    /// Returns how much is overdue now. Bounded: it is asked every few seconds.
    fn overdue(reads: &Pool) -> impl Future<Output = Result<Overdue>> + Send;

    /// Enqueues what is missing, and gives how much that was.
    fn enqueue(tx: &mut Tx) -> impl Future<Output = Result<u64>> + Send;
}

/// What is past its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Overdue {
    /// How many.
    pub count: i64,
    /// Time for which the oldest has been overdue.
    pub oldest: Duration,
}

/// A reconciler with its types forgotten.
#[derive(Clone, Copy)]
pub(crate) struct ErasedReconciler {
    pub(crate) spec: &'static Spec,
    pub(crate) what: &'static str,
    pub(crate) overdue: fn(&Pool) -> BoxFuture<'_, Result<Overdue>>,
}

impl ErasedReconciler {
    pub(crate) fn of<R: Reconciler>() -> Self {
        Self { spec: R::SPEC, what: R::WHAT, overdue: |reads| Box::pin(R::overdue(reads)) }
    }
}

/// Its tick, as that of a schedule.
struct Ticking<R>(std::marker::PhantomData<fn(R)>);

impl<R: Reconciler> schedule::TxHandler for Ticking<R> {
    const SPEC: &'static Spec = R::SPEC;

    async fn handle(tx: &mut Tx, _: Tick) -> Result<()> {
        let count = R::enqueue(tx).await?;
        if count > 0 {
            tracing::warn!(handler = R::SPEC.name, count, what = R::WHAT, "what was overdue is enqueued again");
        }
        Ok(())
    }
}

pub(crate) fn ticking<R: Reconciler>() -> schedule::ErasedSchedule {
    schedule::erased::<Ticking<R>>
}

/// Interval at which it is looked how much is overdue.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// What the last look found. What can't be known is missing.
#[derive(Debug, Clone, Default)]
struct Found(Arc<Mutex<HashMap<&'static str, Overdue>>>);

impl Found {
    fn each(&self, mut see: impl FnMut(&'static str, &Overdue)) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().for_each(|(name, overdue)| see(name, overdue));
    }
}

/// Looks until the drain.
pub(crate) async fn run(runtime: Runtime, reconcilers: Vec<ErasedReconciler>) {
    if reconcilers.is_empty() {
        return;
    }
    let all = Found::default();
    register(runtime.metrics().meter(), &all);
    loop {
        let mut found = HashMap::new();
        for reconciler in &reconcilers {
            match (reconciler.overdue)(&runtime.pools().reads).await {
                Ok(overdue) => drop(found.insert(reconciler.spec.name, overdue)),
                Err(error) => {
                    tracing::debug!(handler = reconciler.spec.name, %error, "it can't be looked what is overdue");
                }
            }
        }
        *all.0.lock().unwrap_or_else(PoisonError::into_inner) = found;
        if !runtime.tasks().pause(LOOK_EVERY).await {
            return;
        }
    }
}

fn register(meter: &Meter, found: &Found) {
    type Figure = fn(&Overdue) -> i64;
    let gauges: [(&'static str, &'static str, Figure); 2] = [
        ("gavel_overdue", "What is past its time and should have happened; bounded", |overdue| overdue.count),
        ("gavel_overdue_oldest_age_ms", "How long the oldest of it has been", |overdue| {
            i64::try_from(overdue.oldest.as_millis()).unwrap_or(i64::MAX)
        }),
    ];
    for (name, description, figure) in gauges {
        let found = found.clone();
        meter
            .i64_observable_gauge(name)
            .with_description(description)
            .with_callback(move |observer| {
                found.each(|name, overdue| observer.observe(figure(overdue), &[KeyValue::new("reconciler", name)]));
            })
            .build();
    }
}
