//! Who does something as an operator, and why, for the audit.
use clap::Args;
use gavel_runtime::host;
use std::env;

/// Why something is done.
#[derive(Args)]
pub(crate) struct Why {
    /// Why, for the audit
    #[arg(long, value_parser = reason)]
    reason: Option<String>,
}

impl Why {
    /// What was said; empty where nothing was.
    pub(crate) fn said(&self) -> String {
        self.reason.clone().unwrap_or_default()
    }
}

/// Who works on the database itself, where no token says it: the user, on this machine.
pub(crate) fn here() -> String {
    format!("{}@{}", env::var("USER").unwrap_or_else(|_| "somebody".to_owned()), host::name())
}

/// One to 500 characters.
pub(crate) fn reason(text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.chars().count() > 500 {
        return Err("allowed: 1 to 500 characters, for the audit".to_owned());
    }
    Ok(text.trim().to_owned())
}
