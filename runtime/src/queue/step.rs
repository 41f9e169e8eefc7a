//! The steps of a leased job's life one by one, for tests that take them in any order. Each is the statement that
//! workers use.
use super::{
    claim::{self, Claimed, Cursor},
    settle::{self, Failure, Fence, Keys},
};
use crate::{Conn, Result, base::ids};
use std::time::Duration;
use uuid::Uuid;

/// A leased job.
#[derive(Debug)]
pub(crate) struct Claim {
    job: Claimed,
    token: Uuid,
    kind: &'static str,
    per_key: Option<u32>,
}

pub(crate) async fn lease(
    conn: &mut Conn,
    kind: &'static str,
    per_key: Option<u32>,
    most: usize,
    life: Duration,
) -> Result<Vec<Claim>> {
    let token = ids::random();
    let claimed = claim::lease(conn, kind, &Cursor::new().from(), (most, &[]), (token, life)).await?;
    Ok(claimed.into_iter().map(|job| Claim { job, token, kind, per_key }).collect())
}

impl Claim {
    pub(crate) fn job_id(&self) -> Uuid {
        self.job.id
    }

    pub(crate) fn deaths(&self) -> i32 {
        self.job.deaths
    }

    fn keys(&self) -> Keys<'static> {
        Keys::of(self.kind, self.per_key, &[&self.job])
    }

    pub(crate) async fn complete(&self, conn: &mut Conn) -> Result<bool> {
        Ok(settle::complete_leased(conn, &[&self.job], &[self.token], &self.keys()).await?.0 == 1)
    }

    pub(crate) async fn fail(&self, conn: &mut Conn, after: Duration) -> Result<bool> {
        let failure = Failure { class: "retry", error: "failed by hand".to_owned(), after: Some(after) };
        let fence = Fence::Token(self.token);
        if self.job.attempts <= 1 {
            return Ok(settle::dead_letter(conn, &self.job, fence, &failure, &self.keys()).await?.is_some());
        }
        settle::retry(conn, &self.job, fence, &failure, after).await
    }

    pub(crate) async fn snooze(&self, conn: &mut Conn, pause: Duration) -> Result<bool> {
        settle::snooze(conn, self.job.id, Some(self.token), pause).await
    }
}
