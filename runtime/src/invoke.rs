//! One run of a handler: one span, one set of metrics, a panic caught, a deadline kept.
use crate::{Class, Error, Invocation, Result, Runtime, fault, spec::Spec};
use futures_util::FutureExt;
use std::{
    any::Any,
    panic::{AssertUnwindSafe, resume_unwind},
    time::Duration,
};
use tracing::{Instrument, Span, field::Empty};

/// Past its deadline a run is given this long to roll back; then it is dropped and its connection closed.
const BACKSTOP: Duration = Duration::from_secs(2);

/// How a run ended.
pub(crate) struct Finished<T> {
    pub(crate) result: Result<T>,
    /// Whether it ended by itself: a run that was cut off, or panicked, may have left a statement in the middle.
    pub(crate) clean: bool,
    /// Whether what it did may be committed: it ended by itself and gave a result.
    pub(crate) committable: bool,
}

/// Runs `work` in a task of its own, which goes on to its end when the caller stops waiting: a client that hangs up
/// never leaves a transaction half done.
pub(crate) async fn invoke<T: Send + 'static>(
    runtime: &Runtime,
    spec: &'static Spec,
    invocation: Invocation,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let inner = runtime.clone();
    let run = async move { within(&inner, spec, &invocation, BACKSTOP, work).await.result };
    match runtime.tasks().spawn(run).await {
        Ok(result) => result,
        Err(join) => Err(Error::internal(join)),
    }
}

/// Runs `work` here, until its deadline.
pub(crate) async fn observed<T>(
    runtime: &Runtime,
    spec: &'static Spec,
    invocation: &Invocation,
    work: impl Future<Output = Result<T>>,
) -> Finished<T> {
    within(runtime, spec, invocation, Duration::ZERO, work).await
}

/// Runs `work` here, until its deadline, with neither span nor metrics.
pub(crate) async fn quietly<T>(invocation: &Invocation, work: impl Future<Output = Result<T>>) -> Finished<T> {
    caught(invocation.remaining(), work).await
}

async fn within<T>(
    runtime: &Runtime,
    spec: &'static Spec,
    invocation: &Invocation,
    extra: Duration,
    work: impl Future<Output = Result<T>>,
) -> Finished<T> {
    let span = tracing::info_span!(
        "invocation",
        handler = spec.name,
        trigger = spec.trigger.kind(),
        correlation_id = invocation.correlation_id,
        trace_id = invocation.trace_id(),
        caller = invocation.caller.as_ref().map_or("", |caller| &caller.subject),
        outcome = Empty,
    );
    let run = async {
        let observed = runtime.metrics().begin(spec.name, spec.trigger.kind());
        let finished = caught(invocation.remaining() + extra, work).await;
        runtime.metrics().end(observed, outcome_of(&finished.result));
        report(&finished.result);
        finished
    };
    run.instrument(span).await
}

async fn caught<T>(limit: Duration, work: impl Future<Output = Result<T>>) -> Finished<T> {
    match tokio::time::timeout(limit, AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(result)) => {
            let committable = result.is_ok();
            let clean = result.as_ref().err().is_none_or(|error| error.class() != Class::DeadlineExceeded);
            Finished { result, clean, committable }
        }
        Ok(Err(panic)) if panic.is::<fault::Killed>() => resume_unwind(panic),
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

fn outcome_of<T>(result: &Result<T>) -> &'static str {
    result.as_ref().map_or_else(|error| error.class().name(), |_| "ok")
}

/// The one place where a handler's error is logged.
fn report<T>(result: &Result<T>) {
    Span::current().record("outcome", outcome_of(result));
    let Err(error) = result else { return };
    match error.class() {
        Class::Internal => tracing::error!(%error, "the handler failed"),
        Class::Unavailable | Class::Exhausted | Class::DeadlineExceeded => {
            tracing::warn!(%error, "the handler could not finish");
        }
        _ => tracing::info!(%error, "the handler refused"),
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("?")
}
