//! Is everything well?
use crate::{output::Output, settings::Settings};
use gavel_runtime::diagnose::{Finding, diagnose};
use serde_json::json;
use std::{process::ExitCode, time::Duration};

pub(crate) async fn run(settings: &Settings, output: Output) -> anyhow::Result<ExitCode> {
    let mut findings =
        vec![service("service", &settings.url).await, service("service, for operators", &settings.ops_url).await];
    findings.extend(diagnose(gavel::app(), &settings.backends()?).await?);
    let mark = |finding: &Finding| if finding.ok { "ok" } else { "WRONG" }.to_owned();
    let rows: Vec<_> = findings.iter().map(|f| vec![mark(f), f.what.clone(), f.detail.clone()]).collect();
    output.table(&json!(findings), &["", "what", "detail"], &rows);
    Ok(if findings.iter().all(|finding| finding.ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the service says of itself there.
async fn service(what: &str, address: &str) -> Finding {
    let url = format!("{}/readyz", address.trim_end_matches('/'));
    let asked = reqwest::Client::new().get(&url).timeout(Duration::from_secs(5)).send().await;
    let (ok, detail) = match asked {
        Ok(reply) if reply.status().is_success() => (true, format!("{address} is ready")),
        Ok(reply) => {
            let status = reply.status();
            (false, format!("{url} says {status}: {}", reply.text().await.unwrap_or_default().replace(['\n', ' '], "")))
        }
        Err(error) => (false, format!("{url} does not answer: {error}")),
    };
    Finding { what: what.to_owned(), ok, detail }
}
