//! How much one caller, one address and one key may ask of a process.
use super::Env;

/// Rates are per second and process, and twice as many may come at once; streams are those that are open at the same
/// time. 0 is no limit.
///
/// A caller is whoever a token speaks for. Who has none counts by the address they come from: an IPv4 address, or the
/// /64 of an IPv6 one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// Calls that change something, from one caller.
    pub changes_per_caller: u32,
    /// The same about one key of a batched handler.
    pub changes_per_key: u32,
    /// Reads of one caller.
    pub reads_per_caller: u32,
    /// Reads without a token, and signatures of tokens not seen before, from one address.
    pub reads_per_address: u32,
    /// Streams of one caller.
    pub streams_per_caller: u32,
    /// Streams without a token, from one address.
    pub streams_per_address: u32,
}

impl AdmissionLimits {
    /// `GAVEL_CALLS_PER_CALLER`, `GAVEL_CALLS_PER_KEY`, `GAVEL_READS_PER_CALLER`, `GAVEL_READS_PER_ADDRESS`,
    /// `GAVEL_STREAMS_PER_CALLER`, `GAVEL_STREAMS_PER_ADDRESS`.
    pub(super) fn from_env(env: &mut Env) -> Self {
        let mut limit = |name, default| env.number(name, default, (0, 1_000_000));
        Self {
            changes_per_caller: limit("GAVEL_CALLS_PER_CALLER", 100),
            changes_per_key: limit("GAVEL_CALLS_PER_KEY", 0),
            reads_per_caller: limit("GAVEL_READS_PER_CALLER", 200),
            reads_per_address: limit("GAVEL_READS_PER_ADDRESS", 200),
            streams_per_caller: limit("GAVEL_STREAMS_PER_CALLER", 100),
            streams_per_address: limit("GAVEL_STREAMS_PER_ADDRESS", 500),
        }
    }
}
