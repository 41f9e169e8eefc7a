//! How late things are when they are done: events since they happened, jobs since they were due. Each of a batch counts
//! by itself.
use crate::base::memo::Memo;
use chrono::{DateTime, Utc};
use opentelemetry::{
    KeyValue,
    metrics::{BoundHistogram, Histogram, Meter},
};
use uuid::Uuid;

const BOUNDARIES_S: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0];

/// The instruments, and the series of all handlers.
pub(super) struct Delays {
    events: Histogram<f64>,
    jobs: Histogram<f64>,
    of_events: Memo<&'static str, BoundHistogram<f64>>,
    of_jobs: Memo<&'static str, BoundHistogram<f64>>,
}

impl Delays {
    pub(super) fn new(meter: &Meter) -> Self {
        let histogram = |name: &'static str, description: &'static str| {
            let histogram = meter.f64_histogram(name).with_description(description);
            histogram.with_boundaries(BOUNDARIES_S.to_vec()).build()
        };
        Self {
            events: histogram("gavel_event_age_seconds", "Since an event happened, when its consumer has applied it"),
            jobs: histogram("gavel_job_lateness_seconds", "Since a job was due, when it is done"),
            of_events: Memo::default(),
            of_jobs: Memo::default(),
        }
    }

    /// Events of these ids were applied. An id of version 7 says when it was made; of others nothing is known.
    pub(super) fn events(&self, handler: &'static str, ids: impl Iterator<Item = Uuid>, now: DateTime<Utc>) {
        let series = self.of_events.get(handler, || self.events.bind(&[KeyValue::new("handler", handler)]));
        ids.filter_map(made_at).for_each(|made_at| series.record(seconds(made_at, now)));
    }

    /// Jobs that were due then are done.
    pub(super) fn jobs(&self, kind: &'static str, due: impl Iterator<Item = DateTime<Utc>>, now: DateTime<Utc>) {
        let series = self.of_jobs.get(kind, || self.jobs.bind(&[KeyValue::new("kind", kind)]));
        due.for_each(|due| series.record(seconds(due, now)));
    }
}

/// Clocks of two machines differ: what comes before its time is not late.
fn seconds(from: DateTime<Utc>, now: DateTime<Utc>) -> f64 {
    (now - from).as_seconds_f64().max(0.0)
}

fn made_at(id: Uuid) -> Option<DateTime<Utc>> {
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    DateTime::from_timestamp(i64::try_from(seconds).ok()?, nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{clock, ids};

    #[test]
    fn an_id_says_when_it_was_made() {
        let age = (clock::wall() - made_at(ids::ordered()).expect("version 7")).as_seconds_f64();
        assert!(age.abs() < 5.0, "{age}");
        assert_eq!(made_at(ids::random()), None);
    }
}
