//! One enum of error classes and one mapping from it: to a gRPC code, an HTTP status, and what becomes of a job or a
//! message. Handlers choose the class; nobody else decides by error texts.
use crate::metadata::Metadata;
use std::{borrow::Cow, fmt, time::Duration};

/// What a handler returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something did not happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The request itself is wrong, whatever the state of the system.
    Invalid,
    /// No caller, or one whose token does not hold.
    Unauthenticated,
    /// A known caller who may not do this.
    Denied,
    /// What it is about does not exist.
    NotFound,
    /// It contradicts something done before, such as an idempotency key used with another request.
    Conflict,
    /// A business rule says no.
    Refused,
    /// A limit is reached; later may do.
    Exhausted,
    /// Something this depends on does not answer.
    Unavailable,
    /// Time ran out.
    DeadlineExceeded,
    /// A fault of ours. The caller sees a correlation id, never the text.
    Internal,
}

impl Class {
    /// The name used in logs, metrics and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Unauthenticated => "unauthenticated",
            Self::Denied => "denied",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Refused => "refused",
            Self::Exhausted => "exhausted",
            Self::Unavailable => "unavailable",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Internal => "internal",
        }
    }

    /// The gRPC status code's number.
    pub const fn grpc_code(self) -> u16 {
        match self {
            Self::Invalid => 3,
            Self::DeadlineExceeded => 4,
            Self::NotFound => 5,
            Self::Conflict => 6,
            Self::Denied => 7,
            Self::Exhausted => 8,
            Self::Refused => 9,
            Self::Internal => 13,
            Self::Unavailable => 14,
            Self::Unauthenticated => 16,
        }
    }

    /// The HTTP status.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Unauthenticated => 401,
            Self::Denied => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::Refused => 422,
            Self::Exhausted => 429,
            Self::Internal => 500,
            Self::Unavailable => 503,
            Self::DeadlineExceeded => 504,
        }
    }

    /// What a job or message whose handler returned this should meet with.
    pub const fn disposition(self) -> Disposition {
        match self {
            Self::Exhausted | Self::Unavailable | Self::DeadlineExceeded => Disposition::RetryUntilItWorks,
            Self::Internal => Disposition::RetryThenGiveUp,
            Self::Invalid | Self::Unauthenticated | Self::Denied | Self::NotFound | Self::Conflict | Self::Refused => {
                Disposition::GiveUp
            }
        }
    }
}

/// What becomes of a job or a message after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// The surroundings are at fault: a message is held and tried again for as long as it takes; a job uses up its tries.
    RetryUntilItWorks,
    /// It may be a passing fault or a poisonous payload: a bounded number of tries, then dead or parked.
    RetryThenGiveUp,
    /// Trying again can't help: dead or parked at once.
    GiveUp,
}

/// An error with its class, a text for whoever made the request, and, where there is one, a typed detail.
pub struct Error {
    class: Class,
    message: Cow<'static, str>,
    detail: Option<prost_types::Any>,
    source: Option<anyhow::Error>,
    rolled_back: Option<RolledBack>,
    retry_after: Option<Duration>,
    reason: Option<&'static str>,
    /// Whether the database's session that it happened in is of no use any more.
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
            detail: None,
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

    /// [`Class::Invalid`] here and now: a message tells of something that this version does not know. It is kept for one that
    /// does.
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

    /// Attaches a typed detail: a message that clients find in `grpc-status-details-bin`.
    #[must_use]
    pub fn with_detail<M: prost::Name>(mut self, detail: &M) -> Self {
        let value = detail.encode_to_vec();
        self.detail = Some(prost_types::Any { type_url: format!("type.googleapis.com/{}", M::full_name()), value });
        self
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

    pub(crate) fn with_any(mut self, detail: Option<prost_types::Any>) -> Self {
        self.detail = detail;
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

    /// The typed detail.
    pub fn detail(&self) -> Option<&prost_types::Any> {
        self.detail.as_ref()
    }

    /// The surroundings are to blame, or a concurrent change: neither what was asked nor who asked.
    pub(crate) fn is_nobodys_fault(&self) -> bool {
        matches!(self.class, Class::Unavailable | Class::Exhausted)
    }

    /// When it makes sense to try again.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// What programs can tell it by.
    pub fn reason(&self) -> Option<&'static str> {
        self.reason
    }

    /// Headers and trailers, where there are any.
    pub fn metadata(&self) -> Option<&Metadata> {
        self.metadata.as_deref()
    }

    /// Whether another version may know what this one does not.
    pub(crate) fn is_unknown(&self) -> bool {
        self.is_unknown
    }

    /// The same with more to say.
    pub(crate) fn with_hint(self, hint: &str) -> Self {
        Self { message: format!("{}; {hint}", self.message).into(), ..self }
    }

    /// Whether the database's session that it happened in is of no use any more: its connection must be closed.
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
        let (message, detail, metadata) = (self.message.clone(), self.detail.clone(), self.metadata.clone());
        Self { message, detail, source, metadata, ..*self }
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

/// Whether an error leaves its session in doubt: then its connection is closed. A new one may be what this one can't become:
/// able to write, without a plan of yesterday's table, with the settings of today.
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
