//! Logs, metrics and traces: bunyan JSON lines on standard output, Prometheus text at `/metrics`, spans to a collector
//! where one is named.
mod completed;
mod delays;
mod latency;
mod process;
mod runs;
pub(crate) mod traces;

pub(crate) use anyhow::Context as _;
use runs::Observed;

use crate::{
    auth::KeyFigures,
    base::{boundary, clock, failpoint},
};
use chrono::{DateTime, Utc};
use delays::Delays;
use opentelemetry::{
    KeyValue,
    metrics::{Counter, Gauge, Histogram, Meter, MeterProvider},
};
use opentelemetry_sdk::metrics::SdkMeterProvider;
use runs::Runs;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use tracing::{Event, Subscriber};
use tracing_bunyan_formatter::{BunyanFormattingLayer, JsonStorageLayer};
use tracing_subscriber::{
    EnvFilter, Layer,
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
    util::SubscriberInitExt,
};
use uuid::Uuid;

/// The level where `RUST_LOG` is unset: our own lines, and only trouble from libraries. Every broken connection to the
/// broker is reported by whoever builds the next one, so the client library is silent.
const DEFAULT_FILTER: &str = "warn,lapin=off,gavel=info,gavel_runtime=info,sqlxmq::registry=info";

/// What `RUST_LOG` says, or the level where it is unset or empty.
fn filter(asked: Option<&str>) -> anyhow::Result<EnvFilter> {
    let asked = asked.filter(|asked| !asked.trim().is_empty()).unwrap_or(DEFAULT_FILTER);
    EnvFilter::try_new(asked)
        .with_context(|| format!("RUST_LOG is {asked:?}; allowed: levels and targets, such as {DEFAULT_FILTER}"))
}

/// Starts logging for this process. Call it once, first.
pub fn init(process: &'static str) -> anyhow::Result<()> {
    let filter = filter(std::env::var(EnvFilter::DEFAULT_ENV).ok().as_deref())?;
    let lines = EventsOnly(bunyan(process)?);
    tracing_subscriber::registry()
        .with(filter)
        .with(completed::CountCompleted)
        .with(JsonStorageLayer)
        .with(lines)
        .try_init()?;
    if let Ok(plan) = std::env::var(failpoint::VARIABLE) {
        failpoint::arm(&plan).map_err(anyhow::Error::msg)?;
        tracing::warn!(plan, "{} is set: this process will fail on purpose", failpoint::VARIABLE);
    }
    if let Some(socket) = std::env::var_os(boundary::VARIABLE) {
        boundary::arm(socket.as_ref())?;
        tracing::warn!(?socket, "{} is set: this process will stop where it is told to", boundary::VARIABLE);
    }
    Ok(())
}

/// Where a line stands in the source is of no use to whoever reads it, and takes a fifth of it.
fn bunyan(process: &str) -> anyhow::Result<BunyanFormattingLayer<fn() -> io::Stdout>> {
    let layer = BunyanFormattingLayer::new(process.to_owned(), io::stdout as fn() -> io::Stdout);
    Ok(layer.skip_fields(["target", "line", "file"].into_iter())?)
}

/// Writes events, with the fields of the spans that they are in, and not that a span began and ended: each run says
/// itself what became of it, in one line.
struct EventsOnly<L>(L);

impl<S, L> Layer<S> for EventsOnly<L>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    L: Layer<S>,
{
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        self.0.on_event(event, context);
    }
}

/// What every handler is measured by, and the gauges of what waits.
pub(crate) struct Metrics {
    registry: prometheus::Registry,
    runs: Runs,
    delays: Delays,
    batch_size: Histogram<u64>,
    rejected: Counter<u64>,
    standby_reads: Counter<u64>,
    pub(crate) backlog: Arc<Backlog>,
    meter: Meter,
    // Dropping it would end every instrument.
    _provider: SdkMeterProvider,
}

/// What waits, sampled by workers. Minus one where it has not been sampled.
#[derive(Debug)]
pub(crate) struct Backlog {
    pub(crate) outbox_events: AtomicI64,
    pub(crate) outbox_oldest_age_ms: AtomicI64,
    pub(crate) jobs_due: AtomicI64,
    pub(crate) jobs_dead: AtomicI64,
    pub(crate) messages_parked: AtomicI64,
}

impl Metrics {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let registry = prometheus::Registry::new();
        let exporter = opentelemetry_prometheus::exporter().with_registry(registry.clone()).build()?;
        let provider = SdkMeterProvider::builder().with_reader(exporter).build();
        let meter = provider.meter("gavel");
        let unsampled = || AtomicI64::new(-1);
        let backlog = Arc::new(Backlog {
            outbox_events: unsampled(),
            outbox_oldest_age_ms: unsampled(),
            jobs_due: unsampled(),
            jobs_dead: unsampled(),
            messages_parked: unsampled(),
        });
        register_gauges(&meter, &backlog);
        completed::observe(&meter);
        process::observe(&meter);
        Ok(Self {
            registry,
            runs: Runs::new(&meter),
            delays: Delays::new(&meter),
            batch_size: meter
                .u64_histogram("gavel_handler_batch_size")
                .with_description("Calls or messages of one transaction")
                .with_boundaries([1, 2, 4, 8, 16, 32, 64, 128, 256, 512].map(f64::from).to_vec())
                .build(),
            rejected: meter
                .u64_counter("gavel_handler_rejected")
                .with_description("Calls refused at admission because a limit was reached")
                .build(),
            standby_reads: meter
                .u64_counter("gavel_standby_reads")
                .with_description("Reads at a standby; those that failed there were asked again at the primary")
                .build(),
            backlog,
            meter,
            _provider: provider,
        })
    }

    /// Shows the keys that tokens are checked with.
    pub(crate) fn observe_keys(&self, keys: &Arc<KeyFigures>) {
        type Figure = fn(&KeyFigures) -> u64;
        let gauges: [(&'static str, &'static str, Figure); 3] = [
            ("gavel_token_keys", "Keys that tokens are checked with", |keys| keys.counts()[0] as u64),
            ("gavel_token_keys_ignored", "Keys of the document that are of no use here", |keys| {
                keys.counts()[1] as u64
            }),
            ("gavel_token_keys_age_seconds", "Since they were last read", |keys| keys.age().as_secs()),
        ];
        for (name, description, figure) in gauges {
            let keys = keys.clone();
            let gauge = self.meter.u64_observable_gauge(name).with_description(description);
            gauge.with_callback(move |observer| observer.observe(figure(&keys), &[])).build();
        }
    }

    /// Watches the latency of these handlers, which backfills must not spoil.
    pub(crate) fn protect(&self, handlers: Vec<&'static str>) {
        self.runs.protect(handlers);
    }

    /// Milliseconds that 99 of 100 runs of protected handlers took at most, lately; none without any.
    pub(crate) fn protected_p99_ms(&self) -> Option<f64> {
        self.runs.latencies.p99_ms()
    }

    /// For instruments that are somebody's own.
    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// A gauge of a handler's own.
    pub(crate) fn gauge(&self, name: &'static str, description: &'static str) -> Gauge<u64> {
        self.meter.u64_gauge(name).with_description(description).build()
    }

    /// Marks the begin of a run.
    pub(crate) fn begin(&self, handler: &'static str, trigger: &'static str) -> Observed {
        self.runs.begin(handler, trigger)
    }

    /// Marks the end of a run.
    pub(crate) fn end(&self, run: &Observed, outcome: &'static str) {
        self.runs.end(run, outcome);
    }

    /// Counts many runs that ended well, together.
    pub(crate) fn batch(&self, handler: &'static str, trigger: &'static str, runs: u32, took: Duration) {
        self.runs.batch(handler, trigger, runs, took);
    }

    /// One batch of calls or messages was begun.
    pub(crate) fn batch_size(&self, handler: &'static str, size: usize) {
        self.batch_size.record(size as u64, &[KeyValue::new("handler", handler)]);
    }

    /// One call was refused at admission, for that reason.
    pub(crate) fn rejected(&self, handler: &'static str, reason: &'static str) {
        self.rejected.add(1, &[KeyValue::new("handler", handler), KeyValue::new("reason", reason)]);
    }

    /// A standby was read from.
    pub(crate) fn standby_read(&self, outcome: &'static str) {
        self.standby_reads.add(1, &[KeyValue::new("outcome", outcome)]);
    }

    /// A consumer has applied events of these ids.
    pub(crate) fn applied(&self, handler: &'static str, ids: impl Iterator<Item = Uuid>) {
        self.delays.events(handler, ids, clock::wall());
    }

    /// Jobs that were due then are done.
    pub(crate) fn done(&self, kind: &'static str, due: impl Iterator<Item = DateTime<Utc>>) {
        self.delays.jobs(kind, due, clock::wall());
    }

    /// The text Prometheus scrapes.
    pub(crate) fn render(&self) -> anyhow::Result<String> {
        Ok(prometheus::TextEncoder::new().encode_to_string(&self.registry.gather())?)
    }
}

fn register_gauges(meter: &Meter, backlog: &Arc<Backlog>) {
    type Sample = fn(&Backlog) -> &AtomicI64;
    let gauges: [(&'static str, &'static str, Sample); 5] = [
        ("gavel_outbox_events", "Events committed and not yet confirmed, counted up to 10001", |b| &b.outbox_events),
        ("gavel_outbox_oldest_age_ms", "Age of the oldest of them", |b| &b.outbox_oldest_age_ms),
        ("gavel_jobs_due", "Jobs that are due and not yet done, counted up to 10001", |b| &b.jobs_due),
        ("gavel_jobs_dead", "Jobs that failed for good, counted up to 10001", |b| &b.jobs_dead),
        ("gavel_messages_parked", "Messages that could not be applied, counted up to 10001", |b| &b.messages_parked),
    ];
    for (name, description, sample) in gauges {
        let backlog = backlog.clone();
        meter
            .i64_observable_gauge(name)
            .with_description(description)
            .with_callback(move |observer| {
                let value = sample(&backlog).load(Ordering::Relaxed);
                if value >= 0 {
                    observer.observe(value, &[]);
                }
            })
            .build();
    }
}
