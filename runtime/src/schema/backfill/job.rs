//! The jobs of a backfill: one walks its table, and one runs each step that comes after.
use crate::queue::Job;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// At once.
pub(super) const NOW: Duration = Duration::ZERO;

/// Fill the next chunk of a plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunBackfillChunk {
    /// The change's number.
    pub change: i64,
    /// The plan's generation: of another one, nothing is done.
    pub generation: Uuid,
}

impl Job for RunBackfillChunk {
    const KIND: &'static str = "run_backfill_chunk";
    const RETRIES: u32 = 100;
}

/// What becomes of the job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It runs again, after a pause.
    Again(Duration),
    /// It has nothing more to do.
    Over,
}

/// Run an online step of a plan.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunOnlineStep {
    /// The change's number.
    pub change: i64,
    /// The plan's generation: of another one, nothing is done.
    pub generation: Uuid,
    /// Which of its steps, from 0.
    pub step: i32,
}

impl Job for RunOnlineStep {
    const KIND: &'static str = "run_online_step";
    const RETRIES: u32 = 100;
}
