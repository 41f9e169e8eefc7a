//! What operators did, and why: written in the transaction that does it, never changed.
mod sql;

pub use sql::record;

use gavel_runtime::{Error, Result};

/// What stands where nobody said why.
const NO_REASON: &str = "none was given";
/// The longest reason, in characters.
const MAX_REASON_CHARS: usize = 500;

/// What is asked, by whom and why.
#[derive(Debug, serde::Serialize)]
pub struct Asked<T> {
    pub(crate) what: T,
    pub(crate) action: Action,
}

/// What was chosen, as it was: ids, or all of something.
pub(crate) fn target(selection: &impl serde::Serialize) -> String {
    serde_json::to_string(selection).unwrap_or_default()
}

/// What an operator did, for the audit.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Action {
    /// Who.
    pub(crate) by: String,
    /// Why.
    pub(crate) reason: String,
}

impl Action {
    /// Checks the reason.
    ///
    /// # Errors
    /// [`Class::Invalid`](gavel_runtime::Class::Invalid) where there is none, or it is too long.
    pub fn new(by: &str, reason: &str) -> Result<Self> {
        let reason = reason.trim();
        let chars = reason.chars().count();
        if chars == 0 || chars > MAX_REASON_CHARS || reason.chars().any(char::is_control) {
            let given = if chars == 0 { "missing".to_owned() } else { format!("of {chars} characters") };
            let allowed = format!("allowed: 1 to {MAX_REASON_CHARS} characters on one line, for the audit");
            return Err(Error::invalid(format!("reason is {given}; {allowed}")));
        }
        Ok(Self { by: by.to_owned(), reason: reason.to_owned() })
    }

    /// The same where a reason may be left out.
    pub(crate) fn perhaps_with(reason: &str, by: &str) -> Result<Self> {
        Self::new(by, if reason.trim().is_empty() { NO_REASON } else { reason })
    }

    /// Who and why.
    pub fn who(&self) -> (&str, &str) {
        (&self.by, &self.reason)
    }
}
