//! What operators did, and why: written in the transaction that does it, never changed.
mod sql;

pub(crate) use sql::record;

use gavel_runtime::{Error, Result};

/// The longest reason, in characters.
const MAX_REASON_CHARS: usize = 500;

/// What an operator did, for the audit.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Action {
    /// Who.
    pub(crate) by: String,
    /// Why.
    pub(crate) reason: String,
}

impl Action {
    /// Checks the reason.
    pub(crate) fn new(by: &str, reason: &str) -> Result<Self> {
        let reason = reason.trim();
        let chars = reason.chars().count();
        if chars == 0 || chars > MAX_REASON_CHARS || reason.chars().any(char::is_control) {
            let given = if chars == 0 { "missing".to_owned() } else { format!("of {chars} characters") };
            let allowed = format!("allowed: 1 to {MAX_REASON_CHARS} characters on one line, for the audit");
            return Err(Error::invalid(format!("reason is {given}; {allowed}")));
        }
        Ok(Self { by: by.to_owned(), reason: reason.to_owned() })
    }

    /// Who and why.
    pub(crate) fn who(&self) -> (&str, &str) {
        (&self.by, &self.reason)
    }
}
