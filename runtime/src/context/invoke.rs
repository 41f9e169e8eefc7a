//! One run of a handler: one span, one log line, one set of metrics, a panic caught, a deadline kept.
use crate::{
    Class, Error, Invocation, Result, Runtime,
    base::{error::outcome_of, failpoint, spec::Spec},
    telemetry::traces::{self, Links},
};
use futures_util::FutureExt;
use std::{
    any::Any,
    panic::{AssertUnwindSafe, resume_unwind},
    time::{Duration, Instant},
};
use tracing::{Instrument, Level, Span, field::Empty};

/// Past its deadline a run is given this long to roll back; then it is dropped and its connection closed.
const BACKSTOP: Duration = Duration::from_secs(2);

/// The way a run ended.
pub(crate) struct Finished<T> {
    pub(crate) result: Result<T>,
    /// True if it ended by itself: a run that was cut off, or panicked, may have left a statement in the middle.
    pub(crate) clean: bool,
    /// True if what it did may be committed: it ended by itself and gave a result.
    pub(crate) committable: bool,
}

/// Runs `work`, to its end also when the caller stops waiting.
pub(crate) async fn invoke<T: Send + 'static>(
    runtime: &Runtime,
    spec: &'static Spec,
    invocation: Invocation,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let inner = runtime.clone();
    let run = async move { run(&inner, spec, &invocation, work).await };
    runtime.tasks().enduring(Box::pin(run)).await
}

/// Runs `work` here, and past its deadline as long as it takes to roll back.
pub(crate) async fn run<T>(
    runtime: &Runtime,
    spec: &'static Spec,
    invocation: &Invocation,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let span = span(spec, invocation);
    within(runtime, spec, invocation, BACKSTOP, work).instrument(span).await.result
}

/// Runs a read here, until its deadline. One that went well is no line in the log: anybody may send any number of them.
/// So is one that was refused; both are counted.
pub(crate) async fn read<T>(
    runtime: &Runtime,
    spec: &'static Spec,
    invocation: &Invocation,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    if tracing::enabled!(Level::DEBUG) {
        let span = span(spec, invocation);
        return within(runtime, spec, invocation, Duration::ZERO, work).instrument(span).await.result;
    }
    let observed = runtime.metrics().begin(spec.name, spec.trigger.kind());
    let Finished { result, .. } = caught(invocation.remaining(), work).await;
    runtime.metrics().end(&observed, outcome_of(&result));
    traces::ended(spec, invocation, outcome_of(&result));
    if let Err(error) = &result {
        match error.class() {
            Class::Internal => report_all(spec, [invocation].into_iter(), error),
            // Whoever gives a call no time gets this as often as they like.
            Class::Unavailable | Class::DeadlineExceeded => runtime.admission().not_finished(spec, invocation, error),
            _ => {}
        }
    }
    result
}

/// A call that was not let in is a run as well: it is counted, and said.
pub(crate) fn rejected(runtime: &Runtime, spec: &'static Spec, invocation: &Invocation, error: Error) -> Error {
    let metrics = runtime.metrics();
    metrics.end(&metrics.begin(spec.name, spec.trigger.kind()), error.class().name());
    traces::ended(spec, invocation, error.class().name());
    runtime.admission().rejected(spec, invocation, error)
}

/// Runs `work` here, until its deadline; where it is one of very many, `quietly`: with neither line nor metrics.
pub(crate) async fn observed<T>(
    runtime: &Runtime,
    spec: &'static Spec,
    invocation: &Invocation,
    is_quiet: bool,
    work: impl Future<Output = Result<T>>,
) -> Finished<T> {
    if is_quiet {
        let finished = quietly(invocation, work).await;
        traces::ended(spec, invocation, outcome_of(&finished.result));
        return finished;
    }
    let span = span(spec, invocation);
    within(runtime, spec, invocation, Duration::ZERO, work).instrument(span).await
}

/// Runs `work` here, until its deadline, with neither span nor metrics.
pub(crate) async fn quietly<T>(invocation: &Invocation, work: impl Future<Output = Result<T>>) -> Finished<T> {
    caught(invocation.remaining(), work).await
}

/// Runs `work` here, until some time past its deadline, with neither span nor metrics: a panic becomes an error.
pub(crate) async fn guarded<T>(invocation: &Invocation, work: impl Future<Output = Result<T>>) -> Result<T> {
    caught(invocation.remaining() + BACKSTOP, work).await.result
}

fn span(spec: &Spec, invocation: &Invocation) -> Span {
    tracing::info_span!(
        "invocation",
        handler = spec.name,
        trigger = spec.trigger.kind(),
        correlation_id = invocation.correlation_id,
        trace_id = invocation.trace_id(),
        caller = invocation.caller.as_ref().map_or("", |caller| &caller.subject),
    )
}

/// In the run's span.
async fn within<T>(
    runtime: &Runtime,
    spec: &'static Spec,
    invocation: &Invocation,
    extra: Duration,
    work: impl Future<Output = Result<T>>,
) -> Finished<T> {
    tracing::debug!("begun");
    let (began, observed) = (Instant::now(), runtime.metrics().begin(spec.name, spec.trigger.kind()));
    let finished = caught(invocation.remaining() + extra, work).await;
    runtime.metrics().end(&observed, outcome_of(&finished.result));
    traces::ended(spec, invocation, outcome_of(&finished.result));
    report(&finished.result, began);
    finished
}

async fn caught<T>(limit: Duration, work: impl Future<Output = Result<T>>) -> Finished<T> {
    match tokio::time::timeout(limit, AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(result)) => {
            let committable = result.is_ok();
            let clean = result.as_ref().err().is_none_or(|error| error.class() != Class::DeadlineExceeded);
            Finished { result, clean, committable }
        }
        Ok(Err(panic)) if panic.is::<failpoint::Killed>() => resume_unwind(panic),
        Ok(Err(panic)) => {
            let error = Error::internal(anyhow::anyhow!("the handler panicked: {}", text_of(&*panic)));
            Finished { result: Err(error), clean: false, committable: false }
        }
        Err(_) => {
            let error = Error::new(Class::DeadlineExceeded, "the handler ran out of time");
            Finished { result: Err(error), clean: false, committable: false }
        }
    }
}

/// The line of a run, in its span.
fn report<T>(result: &Result<T>, began: Instant) {
    let (outcome, elapsed_ms) = (outcome_of(result), millis(began));
    let Err(error) = result else { return tracing::info!(outcome, elapsed_ms, "done") };
    match error.class() {
        Class::Internal => tracing::error!(outcome, elapsed_ms, %error, "the handler failed"),
        Class::Unavailable | Class::Exhausted | Class::DeadlineExceeded => {
            tracing::warn!(outcome, elapsed_ms, %error, "the handler could not finish");
        }
        _ => tracing::info!(outcome, elapsed_ms, %error, "the handler refused"),
    }
}

fn millis(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// One run for many: a span with all their ids.
pub(crate) struct Together<'a> {
    pub(crate) spec: &'static Spec,
    pub(crate) invocation: &'a Invocation,
    pub(crate) size: usize,
    /// The correlation ids, apart by spaces.
    pub(crate) ids: &'a str,
    /// The runs' places in their traces.
    pub(crate) links: Links,
}

impl Together<'_> {
    /// Runs `work` here, with one line in the log and its size counted. What became of each is for `work` to say, with
    /// [`conclude`]; a panic is not caught.
    pub(crate) async fn run<T>(self, runtime: &Runtime, work: impl Future<Output = Result<T>>) -> Result<T> {
        let Self { spec, invocation, size, ids, links } = self;
        let (id, ids) = if size == 1 { (ids, None) } else { (invocation.correlation_id.as_str(), Some(ids)) };
        let span = tracing::info_span!(
            "invocation",
            handler = spec.name,
            trigger = spec.trigger.kind(),
            correlation_id = id,
            correlation_ids = ids,
            trace_id = invocation.trace_id(),
            caller = invocation.caller.as_ref().map_or("", |caller| &caller.subject),
            batch = size,
            outcome = Empty,
            refused = Empty,
            failed = Empty,
            error = Empty,
        );
        let run = async {
            runtime.metrics().batch_size(spec.name, size);
            tracing::debug!("begun");
            let began = Instant::now();
            let result = work.await;
            let elapsed_ms = millis(began);
            if size > 1 {
                traces::together_ended(spec, invocation, began, links, outcome_of(&result));
            }
            match &result {
                Ok(_) => tracing::info!(elapsed_ms, "done"),
                Err(error) => {
                    tracing::info!(outcome = error.class().name(), elapsed_ms, %error, "nothing of this batch stays");
                }
            }
            result
        };
        run.instrument(span).await
    }
}

/// Says what became of each of a batch. Refusals of many are in their receipts, and in the log only where it is asked
/// for detail.
pub(crate) fn conclude<'a, T: 'a>(
    spec: &Spec,
    invocations: impl ExactSizeIterator<Item = &'a Invocation>,
    verdicts: &[Result<T>],
) {
    let span = Span::current();
    if let [only] = verdicts {
        span.record("outcome", outcome_of(only));
        match only {
            Err(error) if error.class() == Class::Internal => tracing::error!(%error, "the handler failed"),
            Err(error) => drop(span.record("error", tracing::field::display(error))),
            Ok(_) => {}
        }
        return;
    }
    let (mut refused, mut failed) = (0, 0);
    for (invocation, verdict) in invocations.zip(verdicts) {
        let Err(error) = verdict else { continue };
        let correlation_id = &invocation.correlation_id;
        if error.class() == Class::Internal {
            failed += 1;
            tracing::error!(handler = spec.name, correlation_id, %error, "the handler failed");
        } else {
            refused += 1;
            tracing::debug!(handler = spec.name, correlation_id, %error, "the handler refused");
        }
    }
    span.record("outcome", "ok").record("refused", refused).record("failed", failed);
}

/// Says that none of these could be done.
pub(crate) fn report_all<'a>(spec: &Spec, invocations: impl Iterator<Item = &'a Invocation>, error: &Error) {
    for Invocation { correlation_id, .. } in invocations {
        if error.class() == Class::Internal {
            tracing::error!(handler = spec.name, correlation_id, %error, "the handler failed");
        } else {
            tracing::warn!(handler = spec.name, correlation_id, %error, "the handler could not finish");
        }
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("?")
}
