//! Sends a parked message back to the consumer that parked it.
use gavel_runtime::{
    Result,
    job::{self, Attempt, Job, Verdict},
    message::parking,
    spec::{Queue, Spec},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// Send a parked message back to the consumer that parked it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RedeliverMessage {
    /// Which parking of which message.
    pub parked_id: Uuid,
}

impl Job for RedeliverMessage {
    const KIND: &'static str = "redeliver_message";
    const RETRIES: u32 = 10;
}

/// The job's handler.
pub struct Redeliver;

impl job::IoHandler for Redeliver {
    const SPEC: &'static Spec =
        &job::spec::<RedeliverMessage>(Queue::IO).timeout(Duration::from_secs(10)).concurrency(4);
    type Job = RedeliverMessage;

    async fn handle(attempt: &Attempt, job: &RedeliverMessage) -> Result<Verdict> {
        parking::send_back(attempt, job.parked_id).await?;
        Ok(Verdict::Done)
    }
}
