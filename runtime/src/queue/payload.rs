//! What is in a job: its arguments, and what travels beside them.
use crate::{Error, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::time::Duration;

/// The first pause after a failed try; it doubles up to the queue's
/// [`max_backoff`](crate::base::spec::Queue::max_backoff). A producer with the crate sqlxmq chooses its own.
pub(crate) const BASE_BACKOFF: Duration = Duration::from_millis(200);
/// A job that was running when this many workers died is dead-lettered.
pub const MAX_DEATHS: i32 = 3;
/// Errors kept of one job, the newest.
pub const MAX_ERRORS: usize = 20;
/// The longest key of a job, in bytes.
pub const MAX_KEY_BYTES: usize = 200;

/// A kind of job, as whoever enqueues it knows it: its arguments, kept as JSON. Fields are only ever added.
pub trait Job: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The kind: the name of the handler that runs it. Never renamed.
    const KIND: &'static str;
    /// Tries after the first.
    const RETRIES: u32;
    /// How many jobs with the same [`key`](Job::key) may run at once; with 1 they run one after another in the order in
    /// which they were enqueued, and one that waits for its next try holds up those behind it. No limit where none.
    const PER_KEY: Option<u32> = None;

    /// Returns what the job is about, such as an account, where [`PER_KEY`](Job::PER_KEY) is set.
    fn key(&self) -> String {
        String::new()
    }
}

/// What travels beside the arguments, in the payload's bytes: a producer that knows nothing of it leaves it out.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Headers {
    pub(crate) correlation_id: Option<String>,
    pub(crate) traceparent: Option<String>,
}

impl Headers {
    pub(crate) fn read(bytes: Option<&[u8]>) -> Self {
        bytes.and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default()
    }
}

/// The arguments of a job.
pub(crate) fn read<J: Job>(args: &str) -> Result<J> {
    serde_json::from_str(args).map_err(|error| Error::invalid(format!("the job's arguments can't be read: {error}")))
}
