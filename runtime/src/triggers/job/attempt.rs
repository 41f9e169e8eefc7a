//! What the handler of a leased job gets.
use crate::queue::{
    claim::Claimed,
    settle::{self, Keys},
};
use crate::{Class, Error, Io, Result, Tx, base::failpoint};
use std::{
    ops::Deref,
    sync::atomic::{AtomicBool, Ordering},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// One try at a leased job, and what its handler may touch.
pub struct Attempt {
    io: Io,
    token: Uuid,
    job: Claimed,
    kind: &'static str,
    per_key: Option<u32>,
    completed: AtomicBool,
}

impl Deref for Attempt {
    type Target = Io;

    fn deref(&self) -> &Io {
        &self.io
    }
}

impl Attempt {
    pub(super) fn new(io: Io, token: Uuid, job: &Claimed, (kind, per_key): (&'static str, Option<u32>)) -> Self {
        Self { io, token, job: job.clone(), kind, per_key, completed: AtomicBool::new(false) }
    }

    /// Returns whether its handler has completed the job itself.
    pub(super) fn is_completed(&self) -> bool {
        self.completed.load(Ordering::Relaxed)
    }

    /// The job.
    pub fn job_id(&self) -> Uuid {
        self.job.id
    }

    /// 1 for the first try.
    pub fn number(&self) -> i32 {
        self.job.tries + 1
    }

    /// Tripped when the job is cancelled, or when its lease is lost: nothing that this attempt does counts any more.
    pub fn cancelled(&self) -> &CancellationToken {
        &self.io.invocation().cancelled
    }

    /// Commits a transaction begun with [`Io::begin`] together with the job's completion: both or neither. Return
    /// [`Verdict::Done`](super::Verdict::Done) after it.
    ///
    /// # Errors
    /// [`Class::Conflict`] when the lease was lost: everything in the transaction is rolled back.
    pub async fn complete(&self, mut tx: Tx) -> Result<()> {
        if !settle::hold(tx.conn(), self.job.id, self.token).await? {
            tx.rollback().await;
            return Err(Error::new(Class::Conflict, "the job's lease was lost: another attempt has it"));
        }
        let keys = Keys::of(self.kind, self.per_key, &[&self.job]);
        let unblocked = match settle::complete(tx.conn(), &[&self.job], &keys).await {
            Ok(unblocked) => unblocked,
            Err(error) => return Err(tx.fail(error).await),
        };
        failpoint::hit(self.kind, "before_commit");
        tx.commit().await?;
        if let Some(kind) = self.io.runtime().jobs().kinds().get(self.kind) {
            kind.with_cursor(|cursor| cursor.unblocked(&unblocked));
        }
        failpoint::hit(self.kind, "after_commit");
        self.completed.store(true, Ordering::Relaxed);
        Ok(())
    }
}
