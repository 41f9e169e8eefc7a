//! What a session must be like, and what it is told when it begins. Settings are statements and no start-up parameters,
//! which a pooler such as PgBouncer does not hand on.
#![expect(clippy::disallowed_types, reason = "it is the adapter")]
use sqlx::{Executor, PgConnection, Row};
use std::{fmt::Write, time::Duration};

/// Reads that take longer are cut off.
const READ_STATEMENT_TIMEOUT_MS: u32 = 5_000;

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Calls that change something.
    Calls,
    /// Everything else that changes something.
    Work,
    /// Reads.
    Reads,
    /// Reads of what may be some moments old, from a standby.
    Standby,
}

/// Asks whether a session that changes something could do it, and what time it is there. After a failover the same
/// address may lead to a standby, and a session lives on with what it was when it began.
const CAN_WRITE: &str =
    "SELECT NOT pg_is_in_recovery() AND current_setting('transaction_read_only') = 'off', clock_timestamp()";
/// Asks whether a session is a standby's. One that was promoted is none any more: what it has is nobody's copy.
const FOLLOWS: &str = "SELECT pg_is_in_recovery(), clock_timestamp()";
/// Asks whether a session reads what others write. It is read-only on purpose.
const IS_CURRENT: &str = "SELECT NOT pg_is_in_recovery()";

impl Purpose {
    /// Returns what the session is told. One whose process has gone quiet in a transaction is ended by the server after
    /// `quiet`, so that its locks are freed.
    fn settings(self, quiet: Duration) -> String {
        // All statements here are short. Compiling one costs more than it ever saves, and loading the compiler alone
        // can take seconds on a busy server, which no time-out of a statement cuts off.
        let mut settings =
            format!("SET idle_in_transaction_session_timeout = {}; SET jit = off", quiet.as_millis().max(1));
        match self {
            // Their few statements take arrays and go by primary keys. Planning them anew each time would cost more
            // than running them; and a plan that is made while a table is empty, and kept, must not read it whole once
            // it is full.
            Self::Calls => settings.push_str(
                "; SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET enable_hashjoin = off; \
                 SET enable_mergejoin = off",
            ),
            Self::Work => {}
            Self::Reads | Self::Standby => {
                let _ = write!(
                    settings,
                    "; SET default_transaction_read_only = on; SET statement_timeout = {READ_STATEMENT_TIMEOUT_MS}"
                );
            }
        }
        settings
    }

    /// Begins the session: it is as it must be, or an error.
    pub(super) async fn begin(self, conn: &mut PgConnection, quiet: Duration) -> Result<(), sqlx::Error> {
        if !self.fits(conn).await? {
            let why = if self == Self::Standby { NO_STANDBY } else { UNFIT };
            return Err(sqlx::Error::Protocol(why.to_owned()));
        }
        conn.execute(self.settings(quiet).as_str()).await.map(drop)
    }

    /// Returns whether the session is still one that could begin now.
    pub(super) async fn fits(self, conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
        let question = if self == Self::Reads { IS_CURRENT } else { self.question() };
        conn.fetch_one(question).await?.try_get(0)
    }

    /// Asks whether a server is what is looked for, and what time it is there.
    pub(super) const fn question(self) -> &'static str {
        if matches!(self, Self::Standby) { FOLLOWS } else { CAN_WRITE }
    }
}

/// The error of a session that was refused.
pub(super) const UNFIT: &str = "the server is read-only: a standby, or set so";
/// The same where a standby was looked for.
pub(super) const NO_STANDBY: &str = "the server is no standby";
