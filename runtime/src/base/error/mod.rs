//! One enum of error classes and one mapping from it: to a gRPC code, an HTTP status, and what becomes of a job or a
//! message. Handlers choose the class; nobody else decides by error texts.
mod class;

pub use class::{Class, Disposition};

use super::metadata::Metadata;
use std::{borrow::Cow, fmt, time::Duration};

/// What a handler returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a run came to, in one word, as logs, metrics and traces have it.
pub(crate) fn outcome_of<T>(result: &Result<T>) -> &'static str {
    result.as_ref().map_or_else(|error| error.class().name(), |_| "ok")
}

/// An error with its class, a text for whoever made the request, and typed details.
pub struct Error {
    class: Class,
    message: Cow<'static, str>,
    details: Vec<prost_types::Any>,
    /// True if the text of a fault of ours may be seen.
    is_shown: bool,
    source: Option<anyhow::Error>,
    rolled_back: Option<RolledBack>,
    retry_after: Option<Duration>,
    reason: Option<&'static str>,
    /// True if the database's session that it happened in is of no use any more.
    spends_session: bool,
    is_unknown: bool,
    metadata: Option<Box<Metadata>>,
}

/// Why PostgreSQL rolled a statement back that may pass another time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RolledBack {
    /// Another transaction was in the way: 40001, 40P01.
    Conflict,
    /// A lock was not granted in time: 55P03.
    LockWait,
}

impl Error {
    /// An error of that class. The message is shown to the caller, except for [`Class::Internal`].
    pub fn new(class: Class, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            class,
            message: message.into(),
            details: Vec::new(),
            is_shown: false,
            source: None,
            rolled_back: None,
            retry_after: None,
            reason: None,
            spends_session: false,
            is_unknown: false,
            metadata: None,
        }
    }

    /// [`Class::Invalid`], from anything that says what is wrong and what is allowed.
    pub fn invalid(message: impl fmt::Display) -> Self {
        Self::new(Class::Invalid, message.to_string())
    }

    /// [`Class::Invalid`] here and now: a message tells of something that this version does not know. It is kept for
    /// one that does.
    pub fn unknown(message: impl fmt::Display) -> Self {
        Self { is_unknown: true, ..Self::invalid(format!("unknown to this version: {message}")) }
    }

    /// [`Class::NotFound`].
    pub fn not_found(message: impl fmt::Display) -> Self {
        Self::new(Class::NotFound, message.to_string())
    }

    /// [`Class::Internal`], keeping the cause for the log.
    pub fn internal(source: impl Into<anyhow::Error>) -> Self {
        Self::new(Class::Internal, "internal error").with_source(source)
    }

    /// Attaches one more typed detail: a message that clients find in `grpc-status-details-bin`.
    #[must_use]
    pub fn with_detail<M: prost::Name>(self, detail: &M) -> Self {
        let value = detail.encode_to_vec();
        self.with_details([prost_types::Any { type_url: format!("type.googleapis.com/{}", M::full_name()), value }])
    }

    /// Attaches details whose types are known by name only.
    #[must_use]
    pub fn with_details(mut self, details: impl IntoIterator<Item = prost_types::Any>) -> Self {
        self.details.extend(details);
        self
    }

    /// Lets the text of a [`Class::Internal`] be seen, by whoever makes sure that it gives nothing away.
    #[must_use]
    pub fn shown(self) -> Self {
        Self { is_shown: true, ..self }
    }

    /// Attaches when it makes sense to try again; clients find it as `google.rpc.RetryInfo`.
    #[must_use]
    pub fn with_retry_after(self, delay: Duration) -> Self {
        Self { retry_after: Some(delay), ..self }
    }

    /// Attaches a reason that programs can tell it by, in capitals; clients find it as `google.rpc.ErrorInfo`.
    #[must_use]
    pub fn with_reason(self, reason: &'static str) -> Self {
        Self { reason: Some(reason), ..self }
    }

    /// Attaches headers and trailers.
    #[must_use]
    pub fn with_metadata(self, metadata: Metadata) -> Self {
        Self { metadata: Some(Box::new(metadata)), ..self }
    }

    /// Attaches the cause, for the log.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<anyhow::Error>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The class.
    pub fn class(&self) -> Class {
        self.class
    }

    /// The text. For [`Class::Internal`] it says nothing of the cause.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The typed details, in their order.
    pub fn details(&self) -> &[prost_types::Any] {
        &self.details
    }

    /// Returns whether the text is for nobody but the log.
    pub(crate) fn is_masked(&self) -> bool {
        self.class == Class::Internal && !self.is_shown
    }

    /// The surroundings are to blame, or a concurrent change: neither what was asked nor who asked.
    pub(crate) fn is_nobodys_fault(&self) -> bool {
        matches!(self.class, Class::Unavailable | Class::Exhausted)
    }

    /// When it makes sense to try again.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Returns what programs can tell it by.
    pub fn reason(&self) -> Option<&'static str> {
        self.reason
    }

    /// Headers and trailers, where there are any.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_deref()
    }

    /// Returns whether another version may know what this one does not.
    pub(crate) fn is_unknown(&self) -> bool {
        self.is_unknown
    }

    /// The same with more to say.
    pub(crate) fn with_hint(self, hint: &str) -> Self {
        Self { message: format!("{}; {hint}", self.message).into(), ..self }
    }

    /// Returns whether the database's session that it happened in is of no use any more: its connection must be closed.
    pub(crate) fn spends_session(&self) -> bool {
        self.spends_session
    }

    /// PostgreSQL rolled the transaction back because of another one (40001, 40P01): the same again may pass.
    pub(crate) fn is_transient_conflict(&self) -> bool {
        self.rolled_back == Some(RolledBack::Conflict)
    }

    /// PostgreSQL did not grant a lock in time.
    pub(crate) fn is_lock_wait(&self) -> bool {
        self.rolled_back == Some(RolledBack::LockWait)
    }

    /// The same error for another of those it befell.
    pub(crate) fn again(&self) -> Self {
        let source = self.source.as_ref().map(|source| anyhow::anyhow!("{source:#}"));
        let (message, details, metadata) = (self.message.clone(), self.details.clone(), self.metadata.clone());
        Self { message, details, source, metadata, ..*self }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class.name(), self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source:#}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as Sql;
        let sqlstate =
            error.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default().into_owned();
        let (class, message) = match &error {
            Sql::PoolTimedOut => (Class::Exhausted, "no database connection became free in time"),
            Sql::Io(_) | Sql::Tls(_) | Sql::PoolClosed | Sql::WorkerCrashed => {
                (Class::Unavailable, "the database does not answer")
            }
            Sql::Database(_) => class_of_sqlstate(&sqlstate),
            _ => (Class::Internal, "internal error"),
        };
        let rolled_back = match sqlstate.as_str() {
            "40001" | "40P01" => Some(RolledBack::Conflict),
            "55P03" => Some(RolledBack::LockWait),
            _ => None,
        };
        let spends_session = spends_session(&error);
        Self { rolled_back, spends_session, ..Self::new(class, message).with_source(error) }
    }
}

/// Returns whether an error leaves its session in doubt: then its connection is closed. A new one may be what this one
/// can't become: able to write, without a plan of yesterday's table, with the settings of today.
pub(crate) fn spends_session(error: &sqlx::Error) -> bool {
    use sqlx::Error as Sql;
    match error {
        Sql::Database(error) => {
            let code = error.code().unwrap_or_default();
            // What statements and rows are to blame for, and what passes: a retry over the same session may do. But not
            // tables that are not found or not to be had, which a session may only be looking for in the wrong place.
            let is_clean =
                ["22", "23", "40", "42", "53", "55", "57014", "P0"].iter().any(|class| code.starts_with(class));
            !is_clean || matches!(&*code, "42P01" | "42P05" | "42501" | "42704" | "42883")
        }
        Sql::RowNotFound | Sql::ColumnNotFound(_) | Sql::ColumnDecode { .. } | Sql::Decode(_) | Sql::Encode(_) => false,
        _ => true,
    }
}

/// PostgreSQL's SQLSTATE codes, appendix A of its manual.
fn class_of_sqlstate(code: &str) -> (Class, &'static str) {
    match code {
        "40001" | "40P01" => (Class::Unavailable, "the database rolled back over a concurrent change"),
        "55P03" => (Class::DeadlineExceeded, "a lock was not granted in time"),
        "57014" => (Class::DeadlineExceeded, "the database gave up: out of time"),
        "25P03" => (Class::DeadlineExceeded, "the transaction was idle for too long"),
        "53300" => (Class::Exhausted, "the database takes no more connections"),
        "25006" => (Class::Unavailable, "the database is read-only"),
        // Shutting down, crashed, starting up.
        "57P01" | "57P02" | "57P03" => (Class::Unavailable, "the database is restarting"),
        // U+0000 in a text, and its escape in JSON.
        "22021" | "22P05" => {
            (Class::Invalid, "a text has a character that can't be kept; allowed: anything but U+0000")
        }
        code if code.starts_with("08") => (Class::Unavailable, "the database does not answer"),
        code if code.starts_with("53") => (Class::Unavailable, "the database is out of resources"),
        _ => (Class::Internal, "internal error"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_internal_errors_text_names_no_cause_but_its_log_line_does() {
        let error = Error::internal(anyhow::anyhow!("password is hunter2"));
        assert_eq!(error.message(), "internal error");
        assert!(error.to_string().contains("hunter2"));
    }

    #[test]
    fn what_passes_by_itself_is_retried_and_a_bad_payload_is_not() {
        assert_eq!(Class::Unavailable.disposition(), Disposition::RetryUntilItWorks);
        assert_eq!(Class::Internal.disposition(), Disposition::RetryThenGiveUp);
        assert_eq!(Class::Invalid.disposition(), Disposition::GiveUp);
        assert_eq!(class_of_sqlstate("57P01").0, Class::Unavailable);
        assert_eq!(class_of_sqlstate("23505").0, Class::Internal);
        assert_eq!(class_of_sqlstate("22021").0, Class::Invalid);
    }
}
