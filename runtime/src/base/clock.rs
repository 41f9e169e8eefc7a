//! The one place that reads this process's clock.
//!
//! Nothing is decided by it: decisions read PostgreSQL's `clock_timestamp()`. It serves log lines, token expiry and the
//! pace of loops.
use chrono::{DateTime, Utc};

/// This process's wall clock.
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub fn wall() -> DateTime<Utc> {
    Utc::now()
}
