//! Is everything well?
use crate::bidctl::{client, output::Output, settings::Settings};
use anyhow::{Context, bail};
use gavel_runtime::diagnose::{Finding, diagnose};
use serde_json::json;
use std::{process::ExitCode, time::Duration};

pub(crate) async fn run(settings: &Settings, output: Output) -> anyhow::Result<ExitCode> {
    let mut findings = vec![
        service(settings, "service", &settings.url).await,
        service(settings, "service, for operators", &settings.ops_url).await,
    ];
    findings.extend(diagnose(gavel::app(), &settings.backends()?).await?);
    let mark = |finding: &Finding| match finding {
        Finding { by_operator: true, .. } => "note".to_owned(),
        Finding { ok: true, .. } => "ok".to_owned(),
        Finding { .. } => "WRONG".to_owned(),
    };
    let rows: Vec<_> = findings.iter().map(|f| vec![mark(f), f.what.clone(), f.detail.clone()]).collect();
    output.table(&json!({ "findings": findings }), &["", "what", "detail"], &rows);
    Ok(if findings.iter().all(|finding| finding.ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns what the service says of itself there.
async fn service(settings: &Settings, what: &str, address: &str) -> Finding {
    let (ok, detail) = match readiness(settings, address).await {
        Ok(detail) => (true, detail),
        Err(error) => (false, format!("{error:#}")),
    };
    Finding { what: what.to_owned(), ok, by_operator: false, detail }
}

async fn readiness(settings: &Settings, address: &str) -> anyhow::Result<String> {
    client::check_url(address)?;
    let url = format!("{}/readyz", address.trim_end_matches('/'));
    let asked = client::http(settings)?.get(&url).timeout(Duration::from_secs(5)).send().await;
    let reply = asked.with_context(|| format!("{url} does not answer"))?;
    let status = reply.status();
    if status.is_success() {
        return Ok(format!("{address} is ready"));
    }
    let said: String = reply.text().await.unwrap_or_default().replace(['\n', ' '], "");
    bail!("{url} says {status}: {said}")
}
