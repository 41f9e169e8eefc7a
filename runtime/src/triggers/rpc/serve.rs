//! From a call's bytes to its handler and back.
use super::{
    IoHandler, StreamHandler, TxHandler,
    incoming::{Incoming, Received, checked, decode},
    reply::{Decided, Reply},
    stream::{self, Replies},
};
use crate::{
    Class, Invocation, Io, Result, Runtime, Tx,
    base::{
        backoff,
        boundary::{Operation, crossing},
        failpoint,
        spec::{PoolKind, Spec},
    },
    context::invoke,
    postgres::{
        receipt::{self, CallKey},
        tx::bounded,
    },
};
use futures_util::future::BoxFuture;
use prost::Message;
use std::{sync::Arc, time::Duration};

/// Pauses before a transaction that was rolled back over a concurrent change runs again.
pub(super) const CONFLICT_PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));

type Unary = dyn Fn(Incoming, Received) -> BoxFuture<'static, Result<Reply>> + Send + Sync;
type Streaming = dyn Fn(Incoming, Received) -> Result<Replies> + Send + Sync;

/// The way in to a handler in one process: messages in protobuf, their types forgotten.
pub(crate) enum Entry {
    /// One answer.
    Unary(Box<Unary>),
    /// Many.
    Streaming(Box<Streaming>),
}

impl Entry {
    pub(super) fn unary<F: Future<Output = Result<Reply>> + Send + 'static>(
        name: &'static str,
        call: impl Fn(Incoming, Received) -> F + Send + Sync + 'static,
    ) -> Self {
        Self::Unary(Box::new(move |incoming, request| {
            Box::pin(crossing(name, Operation::Call("answer"), call(incoming, request)))
        }))
    }

    /// As [`Entry::unary`], and once begun it comes to its end.
    fn enduring<F: Future<Output = Result<Reply>> + Send + 'static>(
        runtime: &Runtime,
        name: &'static str,
        call: impl Fn(Incoming, Received) -> F + Send + Sync + 'static,
    ) -> Self {
        let tasks = runtime.tasks().clone();
        Self::unary(name, move |incoming, request| tasks.enduring(Box::pin(call(incoming, request))))
    }

    /// To a handler that changes something.
    pub(crate) fn tx<H: TxHandler>(runtime: &Runtime) -> Self {
        let inner = runtime.clone();
        Self::enduring(runtime, H::SPEC.name, move |incoming, request| call_tx::<H>(inner.clone(), incoming, request))
    }

    /// To a handler that reads.
    pub(crate) fn io<H: IoHandler>(runtime: &Runtime) -> Self {
        let inner = runtime.clone();
        Self::enduring(runtime, H::SPEC.name, move |incoming, request| call_io::<H>(inner.clone(), incoming, request))
    }

    /// To a handler that answers with a stream.
    pub(crate) fn stream<H: StreamHandler>(runtime: &Runtime) -> Self {
        let runtime = runtime.clone();
        Self::Streaming(Box::new(move |incoming, request| stream::open::<H>(&runtime, incoming, request)))
    }
}

async fn call_tx<H: TxHandler>(runtime: Runtime, incoming: Incoming, request: Received) -> Result<Reply> {
    let admitted = incoming.somebody(&runtime, H::ACCESS).and_then(|caller| {
        let permit = runtime.admission().admit(H::SPEC)?;
        Ok((caller, permit))
    });
    let (caller, _permit) = match admitted {
        Ok(admitted) => admitted,
        Err(error) => return Err(invoke::rejected(&runtime, H::SPEC, &incoming.invocation, error)),
    };
    let run = async {
        let request: H::Request = decode(request)?;
        let (call, command) = checked((H::SPEC, caller), request, H::idempotency_key, H::parse)?;
        let command = Arc::new(command);
        let handle: Box<ErasedTx> = Box::new(move |tx| {
            let command = command.clone();
            Box::pin(async move { Ok(H::handle(tx, &command).await?.encode_to_vec()) })
        });
        let reply = Box::pin(decide(&runtime, H::SPEC, &incoming.invocation, &call, &*handle)).await?.into_reply()?;
        failpoint::hit(H::SPEC.name, "before_reply");
        Ok(reply)
    };
    invoke::run(&runtime, H::SPEC, &incoming.invocation, run).await
}

async fn call_io<H: IoHandler>(runtime: Runtime, incoming: Incoming, request: Received) -> Result<Reply> {
    let Incoming { invocation, token, client, .. } = incoming;
    let io = Io::new(&runtime, PoolKind::Calls, invocation);
    let admitted = token.admission(io.invocation(), H::ACCESS);
    let admitted = admitted.and_then(|caller| runtime.admission().admit_read(H::SPEC, caller, client));
    let _permit = match admitted {
        Ok(permit) => permit,
        Err(error) => return Err(invoke::rejected(&runtime, H::SPEC, io.invocation(), error)),
    };
    let run = async {
        let query = H::parse(decode(request)?, io.invocation().caller.as_ref())?;
        if let Some(standby) = io.at_standby(H::SPEC)
            && let Some(reply) = standby.heard(H::handle(&standby, &query)).await
        {
            return Ok(reply.encode_to_vec().into());
        }
        Ok(H::handle(&io, &query).await?.encode_to_vec().into())
    };
    // It leaves nothing open that would have to be ended first.
    invoke::read(&runtime, H::SPEC, io.invocation(), run).await
}

/// A call's handler with its types forgotten, so that what surrounds it is compiled once.
type ErasedTx = dyn for<'a> Fn(&'a mut Tx) -> BoxFuture<'a, Result<Vec<u8>>> + Send + Sync;

/// Runs the transaction until it is decided: again after a conflict with a concurrent one, within the deadline.
async fn decide(
    runtime: &Runtime,
    spec: &Spec,
    invocation: &Invocation,
    call: &CallKey,
    handle: &ErasedTx,
) -> Result<Decided> {
    let mut attempt = 0;
    loop {
        match attempt_once(runtime, spec, invocation, call, handle).await {
            Ok(Some(decided)) => return Ok(decided),
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
    handle: &ErasedTx,
) -> Result<Option<Decided>> {
    let pool = runtime.pools();
    let mut tx = Tx::begin(pool, PoolKind::Calls, invocation.clone()).await?;
    match receipt::find(tx.conn(), &[call]).await {
        Ok(known) => {
            if let Some(known) = known.into_iter().next().flatten() {
                tx.rollback().await;
                return Ok(Some(Decided::before(known)));
            }
        }
        Err(error) => return Err(tx.fail(error).await),
    }
    let outcome = match bounded(invocation.remaining(), handle(&mut tx)).await {
        Ok(reply) => Ok(reply),
        Err(refusal) if refusal.class() == Class::Refused => {
            // Nothing that a refused call did stays; that it was refused does.
            tx.rollback().await;
            tx = Tx::begin(pool, PoolKind::Calls, invocation.clone()).await?;
            Err(refusal)
        }
        Err(error) => return Err(tx.fail(error).await),
    };
    match bounded(invocation.remaining(), receipt::record(&mut tx, [(call, &outcome)])).await {
        Ok(true) => {}
        Ok(false) => {
            tx.rollback().await;
            return Ok(None);
        }
        Err(error) => return Err(tx.fail(error).await),
    }
    failpoint::hit(spec.name, "before_commit");
    tx.commit().await?;
    failpoint::hit(spec.name, "after_commit");
    Ok(Some(Decided::now(outcome)))
}
