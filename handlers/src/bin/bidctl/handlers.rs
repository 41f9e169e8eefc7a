//! What the application does.
use crate::{client, output::Output, settings::Settings};
use gavel_proto::v1;
use serde_json::json;

pub(crate) async fn run(settings: &Settings, output: Output) -> anyhow::Result<()> {
    let client = v1::OpsServiceClient::new(client::config(settings)?);
    let token = settings.token("ops")?;
    let reply = client.list_handlers(client::request(v1::ListHandlersRequest {}, Some(&token))).await;
    let handlers = reply.map_err(|status| client::explained(settings, &status))?.into_inner().handlers;
    let as_json = |handler: &v1::Handler| {
        json!({
            "name": handler.name, "trigger": handler.trigger, "on": handler.on, "concurrency": handler.concurrency,
            "retries": handler.retries, "timeout_ms": handler.timeout_ms,
        })
    };
    let as_row = |handler: &v1::Handler| {
        vec![
            handler.name.clone(),
            handler.trigger.clone(),
            handler.on.clone(),
            handler.concurrency.to_string(),
            handler.retries.to_string(),
            format!("{} ms", handler.timeout_ms),
        ]
    };
    let json = json!({ "handlers": handlers.iter().map(as_json).collect::<Vec<_>>() });
    let rows: Vec<_> = handlers.iter().map(as_row).collect();
    output.table(&json, &["name", "trigger", "on", "concurrency", "retries", "time-out"], &rows);
    Ok(())
}
