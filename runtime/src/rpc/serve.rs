//! From the wire to a handler and back.
use super::{IoHandler, Sink, StreamHandler, TxHandler};
use crate::{
    Class, Error, Invocation, Io, Result, Runtime, Tx,
    auth::{Access, Caller},
    backoff,
    db::Share,
    fault,
    front::{ClientDeadline, Slot},
    invocation::{CORRELATION_HEADER, TRACEPARENT_HEADER},
    invoke::invoke,
    receipt::{self, CallKey, Outcome},
    spec::Spec,
    tx::bounded,
};
use futures_util::future::BoxFuture;
use poem_grpc::{Code, Request, Response, Status, Streaming};
use prost::Message;
use sha2::{Digest, Sha256};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

/// Pauses before a transaction that was rolled back over a concurrent change runs again.
pub(super) const CONFLICT_PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));

/// Answers on their way to a client that does not keep up.
const STREAM_BUFFER: usize = 16;

/// The longest text of an error, in bytes.
const MAX_MESSAGE_BYTES: usize = 1_000;

/// Serves one call of a handler that changes something.
pub async fn serve_tx<H: TxHandler>(
    runtime: &Runtime,
    request: Request<H::Request>,
) -> Result<Response<H::Reply>, Status> {
    let incoming = Incoming::of(runtime, H::SPEC, &request);
    let result = call_tx::<H>(runtime, &incoming, request.into_inner()).await;
    incoming.answer(result)
}

/// Serves one call of a handler that reads.
pub async fn serve_io<H: IoHandler>(
    runtime: &Runtime,
    request: Request<H::Request>,
) -> Result<Response<H::Reply>, Status> {
    let incoming = Incoming::of(runtime, H::SPEC, &request);
    let result = call_io::<H>(runtime, &incoming, request.into_inner()).await;
    incoming.answer(result)
}

/// Serves one call that is answered by a stream. Refused at the door it is an ordinary error; later, the stream's end.
pub async fn serve_stream<H: StreamHandler>(
    runtime: &Runtime,
    request: Request<H::Request>,
) -> Result<Response<Streaming<H::Reply>>, Status> {
    let incoming = Incoming::of(runtime, H::SPEC, &request);
    let opened = open_stream::<H>(runtime, &incoming, request.into_inner()).await;
    incoming.answer(opened)
}

async fn open_stream<H: StreamHandler>(
    runtime: &Runtime,
    incoming: &Incoming,
    request: H::Request,
) -> Result<Streaming<H::Reply>> {
    let (inner, admission, invocation) = (runtime.clone(), incoming.admission(H::ACCESS), incoming.invocation.clone());
    let door = async move {
        let caller = admission?;
        let permit = inner.admit(H::SPEC)?;
        Ok((permit, H::parse(request, caller.as_ref())?))
    };
    let (permit, query) = invoke(runtime, H::SPEC, incoming.invocation.clone(), door).await?;
    let (sender, mut answers) = mpsc::channel(STREAM_BUFFER);
    let (io, draining) = (Io::new(runtime, Share::Calls, invocation), runtime.tasks().draining().clone());
    runtime.tasks().spawn(async move {
        let (_permit, sink) = (permit, Sink(sender.clone()));
        let ended = tokio::select! {
            ended = H::handle(&io, &query, &sink) => ended,
            () = sender.closed() => return,
            () = draining.cancelled() => Err(Error::new(Class::Unavailable, "this process is stopping; ask again")),
        };
        if let Err(error) = ended {
            tracing::info!(handler = H::SPEC.name, %error, "the stream ended");
            let shown = shown(&error, &io.invocation().correlation_id);
            let status = Status::new(Code::from(shown.class().grpc_code())).with_message(shown.message());
            let _ = sender.send(Err(status)).await;
        }
    });
    Ok(Streaming::new(futures_util::stream::poll_fn(move |context| answers.poll_recv(context))))
}

/// Everything a call goes through is part of its run, so that a refusal at the door is logged and counted as well.
async fn call_tx<H: TxHandler>(runtime: &Runtime, incoming: &Incoming, request: H::Request) -> Result<H::Reply> {
    let (inner, admission, invocation) = (runtime.clone(), incoming.admission(H::ACCESS), incoming.invocation.clone());
    let run = async move {
        let caller = admission?.ok_or_else(|| Error::new(Class::Unauthenticated, "a bearer token is required"))?;
        let _permit = inner.admit(H::SPEC)?;
        let call = call_key(H::SPEC, H::idempotency_key(&request), &request, &caller)?;
        let command = Arc::new(H::parse(request, &caller)?);
        let handle: Box<Erased> = Box::new(move |tx| {
            let command = command.clone();
            Box::pin(async move { Ok(H::handle(tx, &command).await?.encode_to_vec()) })
        });
        let reply = decide(&inner, H::SPEC, &invocation, &call, &*handle).await??;
        fault::point(H::SPEC.name, "before_reply");
        H::Reply::decode(&reply[..]).map_err(Error::internal)
    };
    invoke(runtime, H::SPEC, incoming.invocation.clone(), run).await
}

async fn call_io<H: IoHandler>(runtime: &Runtime, incoming: &Incoming, request: H::Request) -> Result<H::Reply> {
    let (inner, admission, invocation) = (runtime.clone(), incoming.admission(H::ACCESS), incoming.invocation.clone());
    let run = async move {
        let caller = admission?;
        let _permit = inner.admit(H::SPEC)?;
        let query = H::parse(request, caller.as_ref())?;
        let io = Io::new(&inner, Share::Calls, invocation.clone());
        bounded(invocation.remaining(), H::handle(&io, &query)).await
    };
    invoke(runtime, H::SPEC, incoming.invocation.clone(), run).await
}

pub(super) fn call_key(spec: &Spec, given: &str, request: &impl Message, caller: &Caller) -> Result<CallKey> {
    let key = given.parse().map_err(|_| {
        Error::invalid(format!("idempotency_key {given:?} is not a UUID; allowed: one UUID per intent"))
    })?;
    let request_hash = Sha256::digest(request.encode_to_vec()).into();
    Ok(CallKey { principal: caller.subject.clone(), operation: spec.name, key, request_hash })
}

/// A call's handler with its types forgotten, so that what surrounds it is compiled once.
type Erased = dyn for<'a> Fn(&'a mut Tx) -> BoxFuture<'a, Result<Vec<u8>>> + Send + Sync;

/// Runs the transaction until it is decided: again after a conflict with a concurrent one, within the deadline.
async fn decide(
    runtime: &Runtime,
    spec: &Spec,
    invocation: &Invocation,
    call: &CallKey,
    handle: &Erased,
) -> Result<Outcome> {
    let mut attempt = 0;
    loop {
        match attempt_once(runtime, spec, invocation, call, handle).await {
            Ok(Some(outcome)) => return Ok(outcome),
            // Another run of the same call was first: its receipt is there now.
            Ok(None) => {}
            Err(error) if error.is_transient_conflict() && attempt < spec.limits.retries => {
                tokio::time::sleep(backoff::pause(attempt + 1, CONFLICT_PAUSES.0, CONFLICT_PAUSES.1)).await;
            }
            Err(error) => return Err(error),
        }
        attempt += 1;
    }
}

/// None when another run of the same call committed in between.
async fn attempt_once(
    runtime: &Runtime,
    spec: &Spec,
    invocation: &Invocation,
    call: &CallKey,
    handle: &Erased,
) -> Result<Option<Outcome>> {
    let pool = runtime.pools();
    let mut tx = Tx::begin(pool, Share::Calls, invocation.clone()).await?;
    match receipt::find(tx.conn(), &[call]).await {
        Ok(known) => {
            if let Some(known) = known.into_iter().next().flatten() {
                tx.rollback().await;
                return Ok(Some(known));
            }
        }
        Err(error) => return Err(tx.fail(error).await),
    }
    let outcome = match bounded(invocation.remaining(), handle(&mut tx)).await {
        Ok(reply) => Ok(reply),
        Err(refusal) if refusal.class() == Class::Refused => {
            // Nothing that a refused call did stays; that it was refused does.
            tx.rollback().await;
            tx = Tx::begin(pool, Share::Calls, invocation.clone()).await?;
            Err(refusal)
        }
        Err(error) => return Err(tx.fail(error).await),
    };
    if !receipt::record(&mut tx, [(call, &outcome)]).await? {
        tx.rollback().await;
        return Ok(None);
    }
    fault::point(spec.name, "before_commit");
    tx.commit().await?;
    fault::point(spec.name, "after_commit");
    Ok(Some(outcome))
}

/// What a call brings along besides its message.
pub(super) struct Incoming {
    pub(super) invocation: Invocation,
    caller: Result<Option<Caller>>,
    slot: Slot,
}

impl Incoming {
    pub(super) fn of<T>(runtime: &Runtime, spec: &Spec, request: &Request<T>) -> Self {
        let header = |name| request.metadata().get(name);
        let left = request
            .data::<ClientDeadline>()
            .map_or(Duration::MAX, |deadline| deadline.0.saturating_duration_since(Instant::now()));
        let timeout = left.min(spec.limits.timeout);
        let caller = runtime.verifier().map_or(Ok(None), |verifier| verifier.caller(header("authorization")));
        let mut invocation = Invocation::continuing(header(CORRELATION_HEADER), header(TRACEPARENT_HEADER), timeout);
        invocation.caller = caller.as_ref().ok().cloned().flatten();
        Self { invocation, caller, slot: request.data::<Slot>().cloned().unwrap_or_default() }
    }

    /// Who calls, if they may.
    pub(super) fn admission(&self, access: Access) -> Result<Option<Caller>> {
        let caller = match &self.caller {
            Ok(caller) => caller.clone(),
            Err(error) => return Err(error.again()),
        };
        access.check(caller.as_ref())?;
        Ok(caller)
    }

    pub(super) fn answer<T>(self, result: Result<T>) -> Result<Response<T>, Status> {
        let correlation_id = &self.invocation.correlation_id;
        self.slot.fill(correlation_id, result.as_ref().err().map(|error| shown(error, correlation_id)).as_ref());
        result.map(Response::new).map_err(|error| {
            let shown = shown(&error, correlation_id);
            Status::new(Code::from(shown.class().grpc_code())).with_message(shown.message())
        })
    }
}

/// What the caller may see: of an internal error, where to find it in the log.
fn shown(error: &Error, correlation_id: &str) -> Error {
    let mut message = match error.class() {
        Class::Internal => format!("internal error; correlation id {correlation_id}"),
        _ => error.message().to_owned(),
    };
    // It quotes what it was given, and travels in a header.
    message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
    Error::new(error.class(), message).with_any(error.detail().cloned())
}
