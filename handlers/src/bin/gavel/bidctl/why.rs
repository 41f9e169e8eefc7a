//! Who does something as an operator, and why, for the audit.
use crate::bidctl::settings::Settings;
use anyhow::Context;
use clap::Args;
use gavel_runtime::host;

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

/// Who works on the database itself, where no token says it: whoever they say they are, on this machine. It is the
/// account's password that lets them.
pub(crate) fn here(settings: &Settings) -> anyhow::Result<String> {
    // Under sudo the user is root, and somebody has become it.
    let account = || ["SUDO_USER", "USER"].iter().find_map(|name| settings.get(name)).map(ToOwned::to_owned);
    let name = settings.user.clone().or_else(account).filter(|name| !name.trim().is_empty());
    let name = name.context("who are you, for the audit? USER is not set: say --user NAME")?;
    Ok(format!("{}@{}", name.trim(), host::name()))
}

/// One to 500 characters.
pub(crate) fn reason(text: &str) -> Result<String, String> {
    if text.trim().is_empty() || text.chars().count() > 500 {
        return Err("allowed: 1 to 500 characters, for the audit".to_owned());
    }
    Ok(text.trim().to_owned())
}
