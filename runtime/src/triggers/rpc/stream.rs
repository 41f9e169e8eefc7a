//! Calls that are answered by a stream.
use super::{
    StreamHandler,
    incoming::{Incoming, Received, decode},
};
use crate::{
    Class, Error, Io, Result, Runtime, auth,
    base::{call::Call, spec::PoolKind},
    context::invoke,
};
use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream, FuturesUnordered},
};
use prost::Message;
use std::{
    future::pending,
    marker::PhantomData,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// Answers on their way to a client that does not keep up. Few: a handler that waits can skip what is outdated
/// meanwhile.
const BUFFER: usize = 1;

/// A stream's answers.
pub(crate) type Replies = BoxStream<'static, Result<Arc<Answer>>>;

/// An answer in protobuf and, once somebody wants it, in JSON.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) protobuf: Bytes,
    pub(crate) json: OnceLock<Bytes>,
}

/// An answer that many streams send, encoded once in protobuf and once in JSON. Cheap to clone.
#[derive(Debug)]
pub struct Encoded<T>(Arc<Answer>, PhantomData<fn(T)>);

impl<T> Clone for Encoded<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<T: Message> Encoded<T> {
    /// Encodes it.
    pub fn of(reply: &T) -> Self {
        let answer = Answer { protobuf: reply.encode_to_vec().into(), json: OnceLock::new() };
        Self(Arc::new(answer), PhantomData)
    }
}

/// Where a stream's answers go.
pub struct Sink<T> {
    sender: mpsc::Sender<Arc<Answer>>,
    patience: Duration,
    call: Option<Arc<Call>>,
    of: PhantomData<fn(T)>,
}

impl<T: Message> Sink<T> {
    /// Sends one answer; waits while the client does not keep up.
    ///
    /// # Errors
    /// When the client has left, or has taken nothing for too long (`GAVEL_STREAM_PATIENCE_MS`).
    pub async fn send(&self, reply: T) -> Result<()> {
        self.send_encoded(Encoded::of(&reply)).await
    }

    /// As [`Sink::send`].
    ///
    /// # Errors
    /// The same.
    pub async fn send_encoded(&self, reply: Encoded<T>) -> Result<()> {
        use mpsc::error::SendTimeoutError::{Closed, Timeout};
        if let Some(call) = &self.call {
            call.open();
        }
        self.sender.send_timeout(reply.0, self.patience).await.map_err(|error| match error {
            Closed(_) => Error::new(Class::Unavailable, "the client has left"),
            Timeout(_) => {
                let message = format!("the client has taken nothing for {:?}: it is dropped", self.patience);
                Error::new(Class::Exhausted, message)
            }
        })
    }
}

/// Rejected at once it is an ordinary error; later, the stream's end.
pub(super) fn open<H: StreamHandler>(runtime: &Runtime, incoming: Incoming, request: Received) -> Result<Replies> {
    let Incoming { invocation, token, client, client_deadline: until } = incoming;
    let admitted = token.admission(&invocation, H::ACCESS).and_then(|caller| {
        let place = runtime.admission().admit_stream(H::SPEC, caller, client)?;
        let query = H::parse(decode(request)?, caller)?;
        Ok((place, query, caller.and_then(|caller| Instant::now().checked_add(caller.remaining()))))
    });
    let (place, query, token_until) =
        admitted.map_err(|error| invoke::rejected(runtime, H::SPEC, &invocation, error))?;
    let (sender, mut answers) = mpsc::channel(BUFFER);
    // Not in the buffer: there may be no room in it. What stands here at first is told when the handler panics.
    let panicked = Error::internal(anyhow::anyhow!("the handler of the stream panicked"));
    let ending = Arc::new(Mutex::new(Some(panicked)));
    let call = invocation.call.clone();
    let (io, closing) = (Io::new(runtime, PoolKind::Calls, invocation), runtime.tasks().closing().clone());
    let (metrics, patience, end) = (runtime.clone(), runtime.streams().patience, ending.clone());
    runtime.tasks().spawn(async move {
        // Also where the handler panics before its first answer: somebody waits for what goes beside it.
        let _opened = call.clone().map(Opened);
        let _open = metrics.metrics().begin(H::SPEC.name, "stream");
        let (_place, sink) = (place, Sink { sender: sender.clone(), patience, call: call.clone(), of: PhantomData });
        let ends = async {
            tokio::select! {
                () = sender.closed() => None,
                () = closing.cancelled() => Some(stopping(H::ENDS_WELL_IN_A_DRAIN)),
                () = expiry(until) => Some(Err(Error::new(Class::DeadlineExceeded, "the stream's time is over"))),
                () = expiry(token_until) => Some(Err(expired())),
            }
        };
        // In a set of one, which looks at what may end it when that happens, and not with each answer.
        let mut ends = FuturesUnordered::from_iter([ends]);
        let ended = tokio::select! {
            ended = H::handle(&io, &query, &sink) => ended,
            Some(end) = ends.next() => match end {
                Some(ended) => ended,
                None => return,
            },
        };
        if let Err(error) = &ended {
            let run = io.invocation();
            let (correlation_id, trace_id) = (&run.correlation_id, run.trace_id());
            match error.class() {
                // Anybody may ask for what is not there.
                Class::NotFound | Class::Invalid => metrics.admission().not_finished(H::SPEC, run, error),
                _ => tracing::info!(handler = H::SPEC.name, correlation_id, trace_id, %error, "the stream ended"),
            }
        }
        *end.lock().unwrap_or_else(PoisonError::into_inner) = ended.err();
    });
    Ok(Box::pin(stream::poll_fn(move |context| {
        answers.poll_recv(context).map(|answer| match answer {
            Some(answer) => Some(Ok(answer)),
            None => ending.lock().unwrap_or_else(PoisonError::into_inner).take().map(Err),
        })
    })))
}

/// Opens the call when dropped.
struct Opened(Arc<Call>);

impl Drop for Opened {
    fn drop(&mut self) {
        self.0.open();
    }
}

fn expired() -> Error {
    Error::new(Class::Unauthenticated, "the token has expired: ask again with another").with_reason(auth::EXPIRED)
}

fn stopping(ends_well: bool) -> Result<()> {
    if ends_well { Ok(()) } else { Err(Error::new(Class::Unavailable, "this process is stopping; ask again")) }
}

async fn expiry(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until.into()).await,
        None => pending().await,
    }
}
