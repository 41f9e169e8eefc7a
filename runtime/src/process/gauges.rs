//! Gauges of the job queues: the figures that an autoscaler gets, sampled from the database by every process. Each
//! process reports the same, so take the maximum over them.
use super::sampled::Sampled;
use crate::{
    Runtime,
    queue::{DRAIN_WITHIN, Depth},
    triggers::job,
};
use opentelemetry::{KeyValue, metrics::Meter};
use std::time::Duration;

/// Interval at which the queues are looked at.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);

/// Samples until the drain.
pub(crate) async fn run(runtime: Runtime) {
    let queues = Sampled::default();
    register(runtime.metrics().meter(), &queues);
    loop {
        match job::depths_of_all(&runtime, false).await {
            Ok(depths) => queues.set(Some(depths)),
            Err(error) => {
                tracing::warn!(%error, "the queues can't be sampled");
                queues.set(None);
            }
        }
        if !runtime.tasks().pause(SAMPLE_EVERY).await {
            return;
        }
    }
}

fn register(meter: &Meter, queues: &Sampled<Depth>) {
    type Figure = fn(&Depth) -> i64;
    let gauges: [(&'static str, &'static str, Figure); 10] = [
        ("gavel_job_queue_waiting", "Jobs due and not leased; estimated above 10000", |d| d.waiting),
        ("gavel_job_queue_scheduled", "Jobs due later, counted up to 10000", |d| d.scheduled),
        ("gavel_job_queue_running", "Runs as of the workers' last heartbeats", |d| d.running),
        ("gavel_job_queue_workers", "Workers that run the kind", |d| d.workers),
        ("gavel_job_queue_dead", "Jobs that failed for good, counted up to 10000", |d| d.dead),
        ("gavel_job_queue_oldest_age_ms", "Since the oldest waiting job was due", |d| millis(d.oldest_age)),
        ("gavel_job_queue_standing_still", "1 while jobs are due and no worker settles any", |d| {
            i64::from(d.standstill().is_some())
        }),
        ("gavel_job_queue_faulty", "Jobs that could not be settled and are put off, counted up to 10000", |d| d.faulty),
        ("gavel_job_queue_paused", "1 while nobody may claim from it", |d| i64::from(d.paused.is_some())),
        (
            "gavel_job_queue_needed_concurrency",
            "Runs at the same time that would drain the queue within 30 s, running ones counted",
            |d| d.needed(DRAIN_WITHIN),
        ),
    ];
    for (name, description, figure) in gauges {
        let queues = queues.clone();
        meter
            .i64_observable_gauge(name)
            .with_description(description)
            .with_callback(move |observer| {
                queues.each(|depth| observer.observe(figure(depth), &[KeyValue::new("kind", depth.kind.clone())]));
            })
            .build();
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
