//! One run of a handler: one span, one set of metrics, a panic caught, a deadline kept.
use crate::{Class, Error, Invocation, Result, Runtime, spec::Spec};
use futures_util::FutureExt;
use std::{any::Any, panic::AssertUnwindSafe, time::Duration};
use tracing::{Instrument, Span, field::Empty};

/// Past its deadline a run is given this long to roll back; then it is dropped and its connection closed.
const BACKSTOP: Duration = Duration::from_secs(2);

/// Runs `work` in a task of its own, which goes on to its end when the caller stops waiting: a client that hangs up
/// never leaves a transaction half done.
pub(crate) async fn invoke<T: Send + 'static>(
    runtime: &Runtime,
    spec: &'static Spec,
    invocation: Invocation,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let span = tracing::info_span!(
        "invocation",
        handler = spec.name,
        trigger = spec.trigger.kind(),
        correlation_id = invocation.correlation_id,
        trace_id = invocation.trace_id(),
        caller = invocation.caller.as_ref().map_or("", |caller| &caller.subject),
        outcome = Empty,
    );
    let inner = runtime.clone();
    let run = async move {
        let observed = inner.metrics().begin(spec.name, spec.trigger.kind());
        let limit = invocation.remaining() + BACKSTOP;
        let result = match tokio::time::timeout(limit, AssertUnwindSafe(work).catch_unwind()).await {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => Err(Error::internal(anyhow::anyhow!("the handler panicked: {}", text_of(&*panic)))),
            Err(_) => Err(Error::new(Class::DeadlineExceeded, "the handler ran out of time")),
        };
        inner.metrics().end(observed, outcome_of(&result));
        report(&result);
        result
    };
    match runtime.tasks().spawn(run.instrument(span)).await {
        Ok(result) => result,
        Err(join) => Err(Error::internal(join)),
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
