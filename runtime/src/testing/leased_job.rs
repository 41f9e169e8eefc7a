//! Leased jobs, step by step: claimed, and then whatever the test wants to happen.
use super::Harness;
use crate::{
    Result,
    queue::{Job, step},
};
use std::time::Duration;
use uuid::Uuid;

/// A leased job in a test's hand. Dropped, it is what a worker that died leaves: see [`Harness::expire_leases`].
#[derive(Debug)]
pub struct LeasedJob {
    claim: step::Claim,
}

impl Harness {
    /// Leases up to `most` due jobs, as a worker would, in the order in which it would begin them.
    pub async fn claim<J: Job>(&self, most: usize) -> Result<Vec<LeasedJob>> {
        let mut tx = self.begin().await?;
        let claims = step::lease(tx.conn(), J::KIND, J::PER_KEY, most, self.backends.lease).await?;
        tx.commit().await?;
        Ok(claims.into_iter().map(|claim| LeasedJob { claim }).collect())
    }
}

impl LeasedJob {
    /// Which job.
    pub fn job_id(&self) -> Uuid {
        self.claim.job_id()
    }

    /// Workers that died with it.
    pub fn deaths(&self) -> i32 {
        self.claim.deaths()
    }

    /// Completes it, where this attempt still holds it.
    pub async fn complete(&self, harness: &Harness) -> Result<bool> {
        let mut tx = harness.begin().await?;
        let completed = self.claim.complete(tx.conn()).await?;
        tx.commit().await?;
        Ok(completed)
    }

    /// Fails it: it is due again `after`, with a try less, or dead where none is left. False where this attempt does
    /// not hold it any more.
    pub async fn fail(&self, harness: &Harness, after: Duration) -> Result<bool> {
        let mut tx = harness.begin().await?;
        let failed = self.claim.fail(tx.conn(), after).await?;
        tx.commit().await?;
        Ok(failed)
    }

    /// Puts it off, where this attempt still holds it.
    pub async fn snooze(&self, harness: &Harness, pause: Duration) -> Result<bool> {
        let mut tx = harness.begin().await?;
        let snoozed = self.claim.snooze(tx.conn(), pause).await?;
        tx.commit().await?;
        Ok(snoozed)
    }
}
