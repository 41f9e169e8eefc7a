//! Runs of handlers, counted and timed. Each handler's series are looked up once and kept: a run is measured four
//! times, and to find a series by its labels costs more than to count in it.
use super::latency::Latencies;
use crate::base::memo::Memo;
use opentelemetry::{
    KeyValue,
    metrics::{BoundCounter, BoundHistogram, BoundUpDownCounter, Counter, Histogram, Meter, UpDownCounter},
};
use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

/// The instruments, and the series of all handlers that have run.
pub(super) struct Runs {
    invocations: Counter<u64>,
    duration_s: Histogram<f64>,
    in_flight: UpDownCounter<i64>,
    handlers: Memo<(&'static str, &'static str), Handler>,
    protected: OnceLock<Vec<&'static str>>,
    /// Of protected handlers.
    pub(super) latencies: Latencies,
}

/// The series of one handler with one trigger.
struct Handler {
    labels: [KeyValue; 2],
    in_flight: BoundUpDownCounter<i64>,
    ends: Memo<&'static str, Ends>,
    is_protected: bool,
}

/// The series of the runs that ended alike.
struct Ends {
    invocations: BoundCounter<u64>,
    duration_s: BoundHistogram<f64>,
}

impl Runs {
    pub(super) fn new(meter: &Meter) -> Self {
        Self {
            invocations: meter
                .u64_counter("gavel_handler_invocations")
                .with_description("Runs of a handler, by how they ended")
                .build(),
            duration_s: meter
                .f64_histogram("gavel_handler_duration_seconds")
                .with_description("How long a run took")
                .with_boundaries(vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
                .build(),
            in_flight: meter
                .i64_up_down_counter("gavel_handler_in_flight")
                .with_description("Runs that have begun and not ended")
                .build(),
            handlers: Memo::default(),
            protected: OnceLock::new(),
            latencies: Latencies::default(),
        }
    }

    pub(super) fn protect(&self, handlers: Vec<&'static str>) {
        let _ = self.protected.set(handlers);
    }

    pub(super) fn begin(&self, handler: &'static str, trigger: &'static str) -> Observed {
        let handler = self.of(handler, trigger);
        handler.in_flight.add(1);
        Observed { handler, began: Instant::now() }
    }

    pub(super) fn end(&self, run: &Observed, outcome: &'static str) {
        let (ends, took) = (self.ends(&run.handler, outcome), run.began.elapsed());
        ends.duration_s.record(took.as_secs_f64());
        ends.invocations.add(1);
        if run.handler.is_protected {
            self.latencies.record(took);
        }
    }

    pub(super) fn batch(&self, handler: &'static str, trigger: &'static str, runs: u32, took: Duration) {
        let ends = self.ends(&self.of(handler, trigger), "ok");
        // Each of them has taken as long as all of them together.
        (0..runs).for_each(|_| ends.duration_s.record(took.as_secs_f64()));
        ends.invocations.add(runs.into());
    }

    fn of(&self, handler: &'static str, trigger: &'static str) -> Arc<Handler> {
        self.handlers.get((handler, trigger), || {
            let labels = [KeyValue::new("handler", handler), KeyValue::new("trigger", trigger)];
            let is_protected = self.protected.get().is_some_and(|protected| protected.contains(&handler));
            Handler { is_protected, in_flight: self.in_flight.bind(&labels), labels, ends: Memo::default() }
        })
    }

    fn ends(&self, handler: &Handler, outcome: &'static str) -> Arc<Ends> {
        handler.ends.get(outcome, || {
            let [name, trigger] = handler.labels.clone();
            let labels = [name, trigger, KeyValue::new("outcome", outcome)];
            Ends { invocations: self.invocations.bind(&labels), duration_s: self.duration_s.bind(&labels) }
        })
    }
}

/// A run that has begun; it ends when this is dropped, also where nobody waits for its outcome any more.
pub(crate) struct Observed {
    handler: Arc<Handler>,
    began: Instant,
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.handler.in_flight.add(-1);
    }
}
