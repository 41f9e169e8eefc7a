//! What the application does.
use crate::bidctl::{ops::Ops, output::Output, settings::Settings};
use gavel_proto::v1;
use serde_json::json;

pub(crate) async fn run(settings: &Settings, output: Output) -> anyhow::Result<()> {
    let ops = Ops::new(settings)?;
    let handlers = ops.said(ops.client.list_handlers(ops.request(v1::ListHandlersRequest {})).await)?.handlers;
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
