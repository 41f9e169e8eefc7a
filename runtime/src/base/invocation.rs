//! What one run of a handler knows about itself: its correlation id, its place in a trace, its caller, its deadline.
use super::{Caller, call::Call, ids};
use poem::http::HeaderMap;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use uuid::fmt::{Hyphenated, Simple};

/// The header, AMQP property and log field that follow one request through the whole system.
pub const CORRELATION_HEADER: &str = "x-correlation-id";
/// W3C Trace Context, <https://www.w3.org/TR/trace-context/>.
pub const TRACEPARENT_HEADER: &str = "traceparent";
/// The longest correlation id taken from outside, in bytes.
const MAX_CORRELATION_ID_BYTES: usize = 64;

/// One run of a handler.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// The handler that runs, or what the runtime does by itself.
    pub handler: &'static str,
    /// Follows the request from its first header to its last consequence.
    pub correlation_id: String,
    /// `00-<trace id>-<span id>-<flags>`; this run's own span id.
    pub traceparent: String,
    /// The span that this run was begun for; none where a trace begins with it.
    pub parent_span: Option<u64>,
    /// Who calls; none for jobs, messages and schedules, and for anonymous reads.
    pub caller: Option<Caller>,
    /// The call that it answers, for handlers that ask for it.
    pub call: Option<Arc<Call>>,
    /// When it was asked for.
    pub begun: Instant,
    /// When this run must be over.
    pub deadline: Instant,
    /// Tripped when whoever wanted this run does not want it any more: a job that was cancelled.
    pub cancelled: CancellationToken,
}

impl Invocation {
    /// Continues what the given ids say, or starts anew where they are absent or malformed.
    pub fn continuing(
        handler: &'static str,
        correlation_id: Option<&str>,
        traceparent: Option<&str>,
        timeout: Duration,
    ) -> Self {
        let (parent, begun) = (traceparent.filter(|parent| is_traceparent(parent)), Instant::now());
        Self {
            handler,
            correlation_id: correlation_id_or_new(correlation_id),
            traceparent: child_of(parent),
            parent_span: parent.and_then(|parent| u64::from_str_radix(&parent[36..52], 16).ok()),
            caller: None,
            call: None,
            begun,
            deadline: begun + timeout,
            cancelled: CancellationToken::new(),
        }
    }

    /// Starts anew.
    pub fn start(handler: &'static str, timeout: Duration) -> Self {
        Self::continuing(handler, None, None, timeout)
    }

    /// To be stopped by this token.
    pub(crate) fn cancelled_by(self, cancelled: CancellationToken) -> Self {
        Self { cancelled, ..self }
    }

    /// The time left, zero when there is none.
    pub fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The trace's id: 32 hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        &self.traceparent[3..35]
    }
}

/// The correlation id of a request, or a new one where it has none or it is malformed.
pub(crate) fn correlation_id(headers: &HeaderMap) -> String {
    correlation_id_or_new(headers.get(CORRELATION_HEADER).and_then(|value| value.to_str().ok()))
}

/// The given one, or a new one where it is malformed.
pub(crate) fn correlation_id_or_new(given: Option<&str>) -> String {
    given.filter(|id| is_correlation_id(id)).map_or_else(new_correlation_id, ToOwned::to_owned)
}

/// An id from outside goes into log lines and headers: only what can't break either is taken.
pub(crate) fn is_correlation_id(id: &str) -> bool {
    (1..=MAX_CORRELATION_ID_BYTES).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// Written straight into its place, as is the next: each call makes one of both, and formatting them cost a hundredth
/// of it.
fn new_correlation_id() -> String {
    ids::random().hyphenated().encode_lower(&mut [0; Hyphenated::LENGTH]).to_owned()
}

/// A new span in the trace of a well-formed parent, or in a new trace.
pub(crate) fn child_of(parent: Option<&str>) -> String {
    let (mut trace, mut span) = ([0; Simple::LENGTH], [0; Simple::LENGTH]);
    let (trace, flags) = match parent {
        Some(parent) => (&parent[3..35], &parent[53..55]),
        None => (&*ids::random().simple().encode_lower(&mut trace), "01"),
    };
    let span = &ids::random().simple().encode_lower(&mut span)[..16];
    ["00-", trace, "-", span, "-", flags].concat()
}

pub(crate) fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str| part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    let zero = |part: &str| part.bytes().all(|b| b == b'0');
    let parts: Vec<&str> = text.split('-').collect();
    matches!(parts[..], ["00", trace, span, flags]
        if trace.len() == 32 && span.len() == 16 && flags.len() == 2
            && hex(trace) && hex(span) && hex(flags) && !zero(trace) && !zero(span))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_trace_goes_on_with_a_new_span() {
        let run = Invocation::continuing("greet", Some("abc-1"), Some(PARENT), Duration::from_secs(1));
        assert_eq!(run.correlation_id, "abc-1");
        assert_eq!(run.trace_id(), &PARENT[3..35]);
        assert_eq!(run.parent_span, Some(0x00f0_67aa_0ba9_02b7));
        assert_ne!(run.traceparent, PARENT);
        assert!(is_traceparent(&run.traceparent));
    }

    #[test]
    fn what_is_malformed_is_replaced() {
        let long = "x".repeat(65);
        for bad in ["", "a b", "a\n", "ü", long.as_str()] {
            let run = Invocation::continuing("greet", Some(bad), Some("00-0-0-0"), Duration::ZERO);
            assert_ne!(run.correlation_id, bad);
            assert!(is_correlation_id(&run.correlation_id) && is_traceparent(&run.traceparent));
            assert_eq!(run.parent_span, None);
        }
        assert!(!is_traceparent(&PARENT.to_uppercase()));
    }
}
