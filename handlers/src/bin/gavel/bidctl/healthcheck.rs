//! Is a process alive? For whoever starts it again where it is not, from within its own container, which has no curl.
use crate::bidctl::{client, output::Output, settings::Settings};
use anyhow::{Context, bail};
use serde_json::json;
use std::time::Duration;

/// Whoever probes gives up about then.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks `/healthz` at the operators' address.
pub(crate) async fn run(settings: &Settings, output: Output) -> anyhow::Result<()> {
    let address = settings.ops_url.trim_end_matches('/');
    client::check_url(address)?;
    let url = format!("{address}/healthz");
    let asked = client::http(settings)?.get(&url).timeout(PATIENCE).send().await;
    let status = asked.with_context(|| format!("{url} does not answer"))?.status();
    if !status.is_success() {
        bail!("{url} says {status}");
    }
    output.record(&json!({ "healthy": true }), &[("process", "is alive".to_owned())]);
    Ok(())
}
