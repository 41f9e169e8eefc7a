//! One lane of a kind of job.
use super::{Verdict, batched};
use crate::queue::Kind;
use crate::{Result, Runtime, Tx};
use futures_util::future::BoxFuture;
use std::{sync::Arc, time::Duration};

/// A batch takes no further job once it has run for this long.
pub const BATCH_WINDOW: Duration = Duration::from_millis(20);

pub(super) type Each = for<'a> fn(&'a mut Tx, &'a str) -> BoxFuture<'a, Result<Verdict>>;

/// A handler of jobs one after another, or of all of a batch at once.
#[derive(Clone, Copy)]
pub(super) enum Handle {
    Each(Each),
    All(batched::HandleAll),
}

pub(super) struct JobLane {
    pub(super) runtime: Runtime,
    pub(super) kind: Arc<Kind>,
    pub(super) handle: Handle,
    pub(super) per_key: Option<u32>,
    pub(super) index: usize,
    pub(super) size: usize,
}
