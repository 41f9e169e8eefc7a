//! Classes of errors, and all that follows from a class: codes, statuses, what becomes of a job or a message.

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
    /// Whoever wanted it does not want it any more.
    Cancelled,
    /// Something that nobody has a class for.
    Unknown,
    /// It was given up over something else at the same time; the whole of it may be done again.
    Aborted,
    /// It goes past an end, such as the last page.
    OutOfRange,
    /// Nobody does this here.
    Unimplemented,
    /// What was kept is lost or broken for good.
    DataLoss,
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
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
            Self::Aborted => "aborted",
            Self::OutOfRange => "out_of_range",
            Self::Unimplemented => "unimplemented",
            Self::DataLoss => "data_loss",
        }
    }

    /// The gRPC status code's number.
    pub const fn grpc_code(self) -> u16 {
        match self {
            Self::Cancelled => 1,
            Self::Unknown => 2,
            Self::Aborted => 10,
            Self::OutOfRange => 11,
            Self::Unimplemented => 12,
            Self::DataLoss => 15,
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
            Self::Invalid | Self::OutOfRange => 400,
            Self::Unauthenticated => 401,
            Self::Denied => 403,
            Self::NotFound => 404,
            Self::Conflict | Self::Aborted => 409,
            Self::Refused => 422,
            Self::Exhausted => 429,
            // No code of the standard's; nginx has made this one usual.
            Self::Cancelled => 499,
            Self::Internal | Self::Unknown | Self::DataLoss => 500,
            Self::Unimplemented => 501,
            Self::Unavailable => 503,
            Self::DeadlineExceeded => 504,
        }
    }

    /// Returns what a job or message whose handler returned this should meet with.
    pub const fn disposition(self) -> Disposition {
        match self {
            Self::Exhausted | Self::Unavailable | Self::DeadlineExceeded => Disposition::RetryUntilItWorks,
            Self::Internal | Self::Unknown | Self::Aborted | Self::Cancelled => Disposition::RetryThenGiveUp,
            Self::Invalid
            | Self::Unauthenticated
            | Self::Denied
            | Self::NotFound
            | Self::Conflict
            | Self::Refused
            | Self::OutOfRange
            | Self::Unimplemented
            | Self::DataLoss => Disposition::GiveUp,
        }
    }
}

/// The fate of a job or a message after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// The surroundings are at fault: a message is held and tried again for as long as it takes; a job uses up its
    /// tries.
    RetryUntilItWorks,
    /// It may be a passing fault or a poisonous payload: a bounded number of tries, then dead or parked.
    RetryThenGiveUp,
    /// Trying again can't help: dead or parked at once.
    GiveUp,
}
