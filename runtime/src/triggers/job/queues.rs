//! How the queues are, for handlers and for whoever watches over the process.
use crate::queue::depth::{Depth, kinds_with_jobs, look};
use crate::{Error, Io, Result, Runtime};

/// Every queue: those this application knows, and those that have jobs of others, sorted by kind.
///
/// # Errors
/// When the database does not answer: never an empty queue instead.
pub async fn depths(io: &Io) -> Result<Vec<Depth>> {
    depths_of_all(io.runtime(), true).await
}

/// The queue of one kind.
///
/// # Errors
/// [`Class::NotFound`](crate::Class::NotFound) for a kind without a handler, naming those that have one.
pub async fn depth(io: &Io, kind: &str) -> Result<Depth> {
    let kinds = io.runtime().jobs().kinds();
    let Some(known) = kinds.get(kind) else {
        let mut names: Vec<_> = kinds.keys().copied().collect();
        names.sort_unstable();
        return Err(Error::not_found(format!("no queue is called {kind:?}; allowed: {}", names.join(", "))));
    };
    let looked = look(&io.runtime().pools().reads, &[kind.to_owned()], kinds).await?;
    looked.into_iter().next().ok_or_else(|| Error::internal(anyhow::anyhow!("{} was not looked at", known.spec.name)))
}

/// Every queue that this application knows, and with `others` those it does not.
pub(crate) async fn depths_of_all(runtime: &Runtime, others: bool) -> Result<Vec<Depth>> {
    let pool = &runtime.pools().reads;
    let mut names: Vec<String> = runtime.jobs().kinds().keys().map(|kind| (*kind).to_owned()).collect();
    if others {
        names.extend(kinds_with_jobs(pool).await?);
    }
    names.sort_unstable();
    names.dedup();
    look(pool, &names, runtime.jobs().kinds()).await
}
