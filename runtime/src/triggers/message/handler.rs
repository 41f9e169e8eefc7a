//! A consumer's handler, its types forgotten, so that the consumer is compiled once.
use super::delivery::Received;
use crate::{
    Io, Member, Result, Tx,
    base::{batch::Verdicts, spec::Spec},
};
use futures_util::future::BoxFuture;

/// A batch's verdicts, on their way.
pub(super) type Deciding<'a> = BoxFuture<'a, Result<Verdicts<()>>>;
pub(super) type HandleTx = for<'a> fn(&'a mut Tx, &'a [Member<Received>]) -> Deciding<'a>;
type HandleIo = for<'a> fn(&'a Io, &'a [Member<Received>]) -> Deciding<'a>;

/// A handler with its types forgotten, so that the consumer is compiled once.
#[derive(Clone, Copy)]
pub(crate) enum ErasedConsumer {
    Tx(HandleTx),
    Io(HandleIo),
}

#[derive(Clone, Copy)]
pub(super) struct Consumer {
    pub(super) spec: &'static Spec,
    pub(super) handler: ErasedConsumer,
}
