//! How far a request's body was read, within its limits, and what of it is left when its answer is there: that stands
//! in the answer's way, or in that of whatever comes next on the connection.
use super::budget::{BodyLimits, Cut};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, combinators::BoxBody};
use hyper::body::Incoming;
use poem::http::{
    HeaderMap, HeaderValue, Request, Response, Version,
    header::{CONNECTION, CONTENT_TYPE, EXPECT},
};
use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};
use tokio::{
    runtime::Handle,
    time::{Sleep, sleep_until, timeout},
};

/// How much of a body nobody wants is taken all the same, in bytes. Less than what was sent, and its client finds its
/// connection or its stream reset in the middle of sending, and might never see its answer.
const LINGERING_BYTES: usize = 16 * 1_024 * 1_024;
const LINGERING_TIME: Duration = Duration::from_secs(5);
/// A client that has sent nothing for this long is not in the middle of sending.
const PAUSE: Duration = Duration::from_secs(1);
/// As [`PAUSE`], where it may well wait for an answer before it goes on.
const SHORT_PAUSE: Duration = Duration::from_millis(100);

/// A request's body: as its connection has it, or handed on by the routes.
pub(crate) enum Source {
    Direct(Incoming),
    Routed(BoxBody<Bytes, io::Error>),
}

/// What has become of a request's body.
pub(super) struct Unread {
    version: Version,
    /// When the client will have stopped waiting, if it said so.
    deadline: Option<Instant>,
    content_type: Option<HeaderValue>,
    rest: Arc<Rest>,
}

/// What whoever read the body has left of it.
struct Rest {
    /// True if some is still to come.
    is_left: AtomicBool,
    /// Where it can be had, over HTTP/2.
    body: Mutex<Option<Source>>,
    limits: BodyLimits,
    /// Of the process's budget for bodies.
    held: AtomicUsize,
    cut: OnceLock<Cut>,
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.limits.budget.release(self.held.load(Relaxed));
    }
}

/// Has the request say how far it was read, and end where its limits do.
pub(super) fn watched(request: Request<Source>, limits: &BodyLimits) -> (Request<Reading>, Unread) {
    let (version, content_type) = (request.version(), request.headers().get(CONTENT_TYPE).cloned());
    let rest = Arc::new(Rest {
        is_left: AtomicBool::new(!request.body().is_end_stream()),
        body: Mutex::default(),
        limits: limits.clone(),
        held: AtomicUsize::new(0),
        cut: OnceLock::new(),
    });
    let then = match version {
        Version::HTTP_2 => Then::Keep,
        // Who waits to be asked for the body sends none after an answer.
        _ if request.headers().contains_key(EXPECT) => Then::Leave,
        _ => Then::Discard,
    };
    let now = Instant::now();
    let until = now + limits.time;
    let request = request.map(|body| Reading { body: Some(body), rest: rest.clone(), then, until, alarm: None });
    let deadline = timeout_of(request.headers()).and_then(|timeout| now.checked_add(timeout));
    (request, Unread { version, deadline, content_type, rest })
}

impl Unread {
    /// Returns what its client is to be told of a body that was cut off, and in which form.
    pub(super) fn cut(&self) -> Option<(crate::Error, HeaderMap)> {
        let cut = self.rest.cut.get()?;
        let form = self.content_type.iter().map(|value| (CONTENT_TYPE, value.clone())).collect();
        Some((cut.error(&self.rest.limits), form))
    }

    /// The answer to a call, after what is left has come: a stream of HTTP/2 that is answered earlier is reset, and a
    /// gateway between may make an error of that, instead of leading the answer on.
    pub(super) async fn in_turn<B>(self, answer: Response<B>) -> Response<B> {
        self.after(PAUSE, answer).await
    }

    /// As [`Self::in_turn`], to what is no call of a method here: it may never end.
    pub(super) async fn soon<B>(self, answer: Response<B>) -> Response<B> {
        self.after(SHORT_PAUSE, answer).await
    }

    async fn after<B>(self, pause: Duration, mut answer: Response<B>) -> Response<B> {
        if self.version != Version::HTTP_2 {
            // The client must not send its next call over a connection where some of this one may still come.
            if self.rest.is_left.load(Relaxed) {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            return answer;
        }
        let left = self.rest.body.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(body) = left {
            let until = self.deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
            let _ = timeout(until.min(LINGERING_TIME), discard(body, pause)).await;
        }
        answer
    }
}

/// The time-out that a call names, as its protocol writes it; none where it can't be read.
fn timeout_of(headers: &HeaderMap) -> Option<Duration> {
    if let Some(ms) = headers.get("connect-timeout-ms") {
        return ms.to_str().ok()?.parse().ok().map(Duration::from_millis);
    }
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    match unit {
        "H" => number.checked_mul(3_600).map(Duration::from_secs),
        "M" => number.checked_mul(60).map(Duration::from_secs),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// The fate of the rest of a body that is not read to its end.
#[derive(Clone, Copy)]
enum Then {
    Keep,
    Discard,
    Leave,
}

/// A body that is being read.
pub(super) struct Reading {
    /// Here until the drop.
    body: Option<Source>,
    rest: Arc<Rest>,
    then: Then,
    /// When it must have come.
    until: Instant,
    /// Set once it is waited for: most have come with their headers.
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Reading {
    fn cut(&self, cut: Cut) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        // The first reason is the one.
        let _ = self.rest.cut.set(cut);
        Poll::Ready(Some(Err(io::Error::other("the body was cut off"))))
    }
}

impl Body for Source {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Direct(body) => Pin::new(body).poll_frame(context).map_err(io::Error::other),
            Self::Routed(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Direct(body) => body.is_end_stream(),
            Self::Routed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Direct(body) => body.size_hint(),
            Self::Routed(body) => body.size_hint(),
        }
    }
}

impl Body for Reading {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let Poll::Ready(frame) = Pin::new(&mut *body).poll_frame(context) else {
            let until = self.until;
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(until.into())));
            return if alarm.as_mut().poll(context).is_ready() { self.cut(Cut::TooSlow) } else { Poll::Pending };
        };
        if frame.is_none() || body.is_end_stream() {
            self.rest.is_left.store(false, Relaxed);
        }
        if let Some(Ok(data)) = frame.as_ref().map(|frame| frame.as_ref().map(Frame::data_ref)) {
            let bytes = data.map_or(0, Bytes::len);
            if Instant::now() > self.until && self.alarm.is_some() {
                return self.cut(Cut::TooSlow);
            }
            if !self.rest.limits.budget.hold(bytes) {
                return self.cut(Cut::NoRoom);
            }
            self.rest.held.fetch_add(bytes, Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        // Whoever was cut off has had their time.
        if !self.rest.is_left.load(Relaxed) || self.rest.cut.get().is_some() {
            return;
        }
        let Some(body) = self.body.take() else { return };
        match self.then {
            Then::Keep => *self.rest.body.lock().unwrap_or_else(PoisonError::into_inner) = Some(body),
            Then::Discard => {
                let Ok(tokio) = Handle::try_current() else { return };
                // It ends with its connection, and soon in any case.
                tokio.spawn(timeout(LINGERING_TIME, discard(body, LINGERING_TIME)));
            }
            Then::Leave => {}
        }
    }
}

/// Takes what still comes, as far as that goes, until nothing has come for `pause`.
async fn discard(mut body: Source, pause: Duration) {
    let mut left = LINGERING_BYTES;
    while let Ok(Some(Ok(frame))) = timeout(pause, body.frame()).await {
        let taken = frame.data_ref().map_or(0, Bytes::len);
        let Some(still) = left.checked_sub(taken) else { return };
        left = still;
    }
}
