//! Handlers of jobs with their types forgotten.
use super::{
    Attempt, batched,
    handler::{BatchHandler, IoHandler, TxHandler, Verdict},
};
use crate::queue::payload::{Job, read};
use crate::{Result, Tx};
use futures_util::future::BoxFuture;
use std::sync::Arc;

/// A handler with its types forgotten, so that the loops are compiled once. It reads the arguments from JSON.
#[derive(Clone, Copy)]
pub(crate) enum ErasedJob {
    Tx(for<'a> fn(&'a mut Tx, &'a str) -> BoxFuture<'a, Result<Verdict>>),
    TxBatch(batched::HandleAll),
    Io(fn(Arc<Attempt>, String) -> BoxFuture<'static, Result<Verdict>>),
}

/// A handler and what the loops must know of its kind of job.
#[derive(Clone, Copy)]
pub(crate) struct Handler {
    pub(crate) erased: ErasedJob,
    pub(crate) per_key: Option<u32>,
}

pub(crate) fn by_tx<H: TxHandler>() -> Handler {
    fn call<'a, H: TxHandler>(tx: &'a mut Tx, args: &'a str) -> BoxFuture<'a, Result<Verdict>> {
        Box::pin(async move { H::handle(tx, &read::<H::Job>(args)?).await })
    }
    Handler { erased: ErasedJob::Tx(call::<H>), per_key: H::Job::PER_KEY }
}

pub(crate) fn by_tx_batch<H: BatchHandler>() -> Handler {
    Handler { erased: ErasedJob::TxBatch(batched::call::<H>), per_key: H::Job::PER_KEY }
}

pub(crate) fn by_io<H: IoHandler>() -> Handler {
    fn call<H: IoHandler>(attempt: Arc<Attempt>, args: String) -> BoxFuture<'static, Result<Verdict>> {
        Box::pin(async move { H::handle(&attempt, &read::<H::Job>(&args)?).await })
    }
    Handler { erased: ErasedJob::Io(call::<H>), per_key: H::Job::PER_KEY }
}
