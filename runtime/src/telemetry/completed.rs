//! Jobs of the crate sqlxmq that ended well: it tells nobody of them, but its log has a line for each.
use opentelemetry::{KeyValue, metrics::Meter};
use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Mutex, PoisonError},
};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

/// Where the crate logs that.
const SOURCE: &str = "sqlxmq::registry";

/// How many, by the name of the job. There is one log in a process, and so one count.
static COMPLETED: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

/// Counts those lines.
pub(super) struct CountCompleted;

impl<S: Subscriber> Layer<S> for CountCompleted {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        // The target of whatever comes by way of the crate `log`.
        if event.metadata().target() != "log" {
            return;
        }
        let mut line = Line::default();
        event.record(&mut line);
        if let Some(job) = line.completed_job() {
            *COMPLETED.lock().unwrap_or_else(PoisonError::into_inner).entry(job.to_owned()).or_default() += 1;
        }
    }
}

/// What a line says, and who.
#[derive(Default)]
struct Line {
    source: String,
    message: String,
}

impl Line {
    /// `` Job `invoice` completed in 0.02s. ``
    fn completed_job(&self) -> Option<&str> {
        let (job, rest) = self.message.strip_prefix("Job `")?.split_once('`')?;
        (self.source == SOURCE && rest.starts_with(" completed in ")).then_some(job)
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "log.target" {
            value.clone_into(&mut self.source);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }
}

/// Shows the count.
pub(super) fn observe(meter: &Meter) {
    let counter = meter.u64_observable_counter("gavel_sqlxmq_jobs_completed");
    let counter = counter.with_description("Jobs of the crate sqlxmq that ended well here, as its log says");
    let show = |observer: &dyn opentelemetry::metrics::AsyncInstrument<u64>| {
        for (job, count) in &*COMPLETED.lock().unwrap_or_else(PoisonError::into_inner) {
            observer.observe(*count, &[KeyValue::new("job", job.clone())]);
        }
    };
    counter.with_callback(show).build();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_crates_own_line_counts() {
        let line = |source: &str, message: &str| {
            let line = Line { source: source.to_owned(), message: message.to_owned() };
            line.completed_job().map(str::to_owned)
        };
        assert_eq!(line(SOURCE, "Job `invoice` completed in 0.02s."), Some("invoice".to_owned()));
        assert_eq!(line(SOURCE, "Job `invoice` started."), None);
        assert_eq!(line("somebody", "Job `invoice` completed in 0.02s."), None);
    }
}
