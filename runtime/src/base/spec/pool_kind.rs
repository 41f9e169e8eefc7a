//! Pools of connections, by what they are for.

/// Which pool a transaction's connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PoolKind {
    /// Calls that change something.
    Calls,
    /// Jobs, messages, schedules.
    Jobs,
    /// Loops over pending work.
    Relay,
}
