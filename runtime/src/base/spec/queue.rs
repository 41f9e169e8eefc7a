//! How jobs of a kind are claimed, limited and acknowledged.
use super::batch::MAX_BATCH;
use std::{fmt, time::Duration};

/// The longest time a finished job may wait for others to be acknowledged with it.
pub const MAX_GROUP: Duration = Duration::from_millis(5);

/// When the completion of a job is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Durability {
    /// With the handler's effects, in its transaction: exactly once. For `Tx` handlers, and only for them.
    Tx,
    /// Up to this much later, together with others: a crash in between runs the job again. For `Io` handlers.
    Group(Duration),
    /// Before the handler's slot is free again, in a statement of its own. For `Io` handlers.
    Inline,
}

/// At most `jobs` in any `per`, over all processes: a token bucket that holds `jobs` tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many, from 1.
    pub jobs: u32,
    /// In which time.
    pub per: Duration,
}

/// The way the jobs of one kind are claimed, limited and acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Queue {
    /// When a completion is durable.
    pub durability: Durability,
    /// The most jobs that one claim takes, up to [`MAX_BATCH`]. A `Tx` batch is one transaction, which takes no further
    /// job once it has run for [`BATCH_WINDOW`](crate::triggers::job::BATCH_WINDOW): slow jobs commit one by one
    /// whatever stands here.
    pub batch: usize,
    /// Runs at the same time over all processes; only [`Limits::concurrency`](super::Limits::concurrency) per process
    /// where none.
    pub across: Option<u32>,
    /// How many may begin in a time, over all processes.
    pub rate: Option<Rate>,
    /// The longest pause between two tries.
    pub max_backoff: Duration,
}

impl Queue {
    /// For `Tx` handlers: batches of up to 500, pauses up to a minute, no limits across processes.
    pub const TX: Self =
        Self { durability: Durability::Tx, batch: 500, across: None, rate: None, max_backoff: Duration::from_mins(1) };
    /// For `Io` handlers: the same, acknowledged in groups.
    pub const IO: Self = Self { durability: Durability::Group(MAX_GROUP), ..Self::TX };

    /// With another durability.
    #[must_use]
    pub const fn durability(self, durability: Durability) -> Self {
        Self { durability, ..self }
    }

    /// With another batch size.
    #[must_use]
    pub const fn batch(self, batch: usize) -> Self {
        Self { batch, ..self }
    }

    /// With a concurrency over all processes.
    #[must_use]
    pub const fn across(self, across: u32) -> Self {
        Self { across: Some(across), ..self }
    }

    /// With a rate over all processes.
    #[must_use]
    pub const fn rate(self, jobs: u32, per: Duration) -> Self {
        Self { rate: Some(Rate { jobs, per }), ..self }
    }

    /// With another longest pause.
    #[must_use]
    pub const fn max_backoff(self, max_backoff: Duration) -> Self {
        Self { max_backoff, ..self }
    }

    pub(super) fn validate(&self, mut say: impl FnMut(String)) {
        if self.batch == 0 || self.batch > MAX_BATCH {
            say(format!("a batch of {} is out of range; allowed: 1 to {MAX_BATCH}", self.batch));
        }
        if self.across == Some(0) {
            say("a concurrency of 0 across processes runs nothing; allowed: from 1, or pause the queue".to_owned());
        }
        if let Some(Rate { jobs, per }) = self.rate
            && (jobs == 0 || per.is_zero())
        {
            say(format!("a rate of {jobs} per {per:?} runs nothing; allowed: from 1, per more than 0"));
        }
        if let Durability::Group(gather) = self.durability
            && gather > MAX_GROUP
        {
            say(format!("a group may gather for {MAX_GROUP:?} at most, not {gather:?}"));
        }
    }
}

impl fmt::Display for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.durability {
            Durability::Tx => write!(f, "Tx")?,
            Durability::Group(gather) => write!(f, "leased, completed within {gather:?}")?,
            Durability::Inline => write!(f, "leased, completed inline")?,
        }
        write!(f, ", batches up to {}", self.batch)?;
        if let Some(across) = self.across {
            write!(f, ", {across} at once over all workers")?;
        }
        if let Some(Rate { jobs, per }) = self.rate {
            write!(f, ", {jobs} per {per:?}")?;
        }
        Ok(())
    }
}
