//! How calls or messages are combined.

/// The most jobs that one claim may take, and the most calls or messages of one batch.
pub const MAX_BATCH: usize = 1_000;
/// The most bytes that one batch may hold.
pub const MAX_BATCH_BYTES: usize = 16 << 20;
/// The most batches of one handler at the same time, in one process.
pub const MAX_LANES: usize = 64;

/// The way calls or messages are combined: whatever waits becomes one batch, in one transaction. Nothing ever waits for a
/// batch to fill: it grows only while those before it are being committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// The most entries of one batch, up to [`MAX_BATCH`].
    pub size: usize,
    /// The most bytes of one batch, of its encoded entries; a single larger one is a batch by itself.
    pub bytes: usize,
    /// Batches at the same time, in one process: their lanes. Entries of one key are in one of them at a time, in their
    /// order. For messages, each lane is a channel.
    pub lanes: usize,
    /// Calls of one key that wait or are being decided at the same time: one more is refused. Not for messages.
    pub per_key: usize,
}

impl Batch {
    /// Up to 256 entries and 1 MiB, four batches at the same time, 1 024 calls of one key.
    pub const DEFAULT: Self = Self { size: 256, bytes: 1 << 20, lanes: 4, per_key: 1_024 };

    /// With another size.
    #[must_use]
    pub const fn size(self, size: usize) -> Self {
        Self { size, ..self }
    }

    /// With another limit in bytes.
    #[must_use]
    pub const fn bytes(self, bytes: usize) -> Self {
        Self { bytes, ..self }
    }

    /// With another number of lanes.
    #[must_use]
    pub const fn lanes(self, lanes: usize) -> Self {
        Self { lanes, ..self }
    }

    /// With another limit per key.
    #[must_use]
    pub const fn per_key(self, per_key: usize) -> Self {
        Self { per_key, ..self }
    }

    pub(super) fn validate(&self, mut say: impl FnMut(String)) {
        if self.size == 0 || self.size > MAX_BATCH {
            say(format!("a batch of {} is out of range; allowed: 1 to {MAX_BATCH}", self.size));
        }
        if self.bytes == 0 || self.bytes > MAX_BATCH_BYTES {
            say(format!("a batch of {} bytes is out of range; allowed: 1 to {MAX_BATCH_BYTES}", self.bytes));
        }
        if self.lanes == 0 || self.lanes > MAX_LANES {
            say(format!("{} lanes are out of range; allowed: 1 to {MAX_LANES}", self.lanes));
        }
        if self.per_key == 0 {
            say("a limit of 0 calls per key lets nothing in; allowed: from 1".to_owned());
        }
    }
}
