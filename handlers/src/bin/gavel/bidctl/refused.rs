//! What a service answers in place of what was asked for.
use std::{error::Error, fmt};

/// A call that the service has answered with an error.
#[derive(Debug)]
pub(crate) struct Refused {
    /// gRPC's, as in `failed_precondition`.
    pub(crate) code: String,
    pub(crate) message: String,
}

impl Refused {
    /// As where something is not there.
    pub(crate) fn not_found(message: String) -> Self {
        Self { code: "not_found".to_owned(), message }
    }

    /// Returns whether the same call will be answered so however often it is made.
    pub(crate) fn is_final(&self) -> bool {
        matches!(
            &*self.code,
            "unauthenticated" | "permission_denied" | "invalid_argument" | "not_found" | "unimplemented"
        )
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = if self.code == "failed_precondition" { "refused" } else { &self.code };
        write!(f, "{code}: {}", self.message)
    }
}

impl Error for Refused {}
