//! Messages that no try could handle.
use crate::{
    client,
    dead::{PAGE, sum},
    jobs::{ERROR_WIDTH, none_if_empty},
    output::{Output, cut, optional_time, time},
    queue::key,
    settings::Settings,
    watch::Watch,
};
use anyhow::bail;
use clap::{Args, Subcommand};
use gavel_proto::v1;
use serde_json::{Value, json};
use std::fmt::Write;

/// Bytes of a payload shown on a terminal.
const SHOWN_BYTES: usize = 512;

#[derive(Subcommand)]
pub(crate) enum Parked {
    /// List parked messages, the newest first
    List(List),
    /// Show one with its payload
    Show(Show),
    /// Send parked messages back to the consumer that parked them, and to no other
    Retry(Selection),
    /// Delete parked messages for good
    Discard(Discard),
}

#[derive(Args)]
pub(crate) struct List {
    /// Only of this consumer
    #[arg(long)]
    handler: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 20)]
    limit: usize,
    #[command(flatten)]
    watch: Watch,
}

#[derive(Args)]
pub(crate) struct Show {
    /// The parked message's id
    parked_id: String,
}

#[derive(Args)]
pub(crate) struct Selection {
    /// Their ids
    #[arg(required_unless_present = "handler", conflicts_with = "handler", value_name = "PARKED_ID")]
    parked_ids: Vec<String>,
    /// All of this consumer
    #[arg(long)]
    handler: Option<String>,
}

#[derive(Args)]
pub(crate) struct Discard {
    #[command(flatten)]
    which: Selection,
    /// Really: what is discarded is gone
    #[arg(long)]
    yes: bool,
}

impl Parked {
    pub(crate) async fn run(&self, settings: &Settings, output: Output) -> anyhow::Result<()> {
        let client = v1::OpsServiceClient::new(client::config(settings)?);
        let token = settings.token("ops")?;
        let (client, token) = (&client, token.as_str());
        match self {
            Self::List(list) => list.watch.run(output, |output| list.show(client, settings, token, output)).await,
            Self::Show(show) => show.run(client, settings, token, output).await,
            Self::Retry(which) => which.retry(client, settings, token, output).await,
            Self::Discard(discard) if discard.yes => discard.which.discard(client, settings, token, output).await,
            Self::Discard(Discard { which, .. }) => {
                let said = which.handler.as_ref().map(|handler| format!("all of {handler}"));
                let said = said.unwrap_or_else(|| which.parked_ids.join(", "));
                bail!("this would delete parked messages for good: {said}; give --yes to do it")
            }
        }
    }
}

fn as_json(message: &v1::ParkedMessage) -> Value {
    json!({
        "parked_id": message.parked_id, "handler": message.handler, "message_id": none_if_empty(&message.message_id),
        "message_type": none_if_empty(&message.message_type), "routing_key": message.routing_key,
        "correlation_id": none_if_empty(&message.correlation_id), "error": message.error,
        "parked_at": optional_time(message.parked_at.as_ref()), "payload_bytes": message.payload_bytes,
        "retry_at": optional_time(message.retry_at.as_ref()),
    })
}

impl List {
    async fn show(
        &self,
        client: &v1::OpsServiceClient,
        settings: &Settings,
        token: &str,
        output: Output,
    ) -> anyhow::Result<()> {
        let (mut parked, mut page_token) = (Vec::new(), String::new());
        loop {
            let handler = self.handler.clone().unwrap_or_default();
            let request = v1::ListParkedMessagesRequest { handler, page_size: PAGE, page_token };
            let reply = client.list_parked_messages(client::request(request, Some(token))).await;
            let page = reply.map_err(|status| client::explained(settings, &status))?.into_inner();
            parked.extend(page.messages);
            page_token = page.next_page_token;
            if page_token.is_empty() || parked.len() >= self.limit {
                break;
            }
        }
        parked.truncate(self.limit);
        let row = |message: &v1::ParkedMessage| {
            vec![
                message.parked_id.clone(),
                message.handler.clone(),
                message.message_type.clone(),
                message.routing_key.clone(),
                time(message.parked_at.as_ref()),
                if message.retry_at.is_some() {
                    "on its way back".to_owned()
                } else {
                    cut(&message.error, ERROR_WIDTH)
                },
            ]
        };
        let rows: Vec<_> = parked.iter().map(row).collect();
        let json = json!({ "messages": parked.iter().map(as_json).collect::<Vec<_>>() });
        output.table(&json, &["parked message", "handler", "type", "routing key", "parked", "error"], &rows);
        Ok(())
    }
}

impl Show {
    async fn run(
        &self,
        client: &v1::OpsServiceClient,
        settings: &Settings,
        token: &str,
        output: Output,
    ) -> anyhow::Result<()> {
        let request = v1::GetParkedMessageRequest { parked_id: self.parked_id.clone() };
        let reply = client.get_parked_message(client::request(request, Some(token))).await;
        let message = reply.map_err(|status| client::explained(settings, &status))?.into_inner().message;
        let message = message.unwrap_or_default();
        let mut whole = as_json(&message);
        whole["payload_hex"] = hex(&message.payload).into();
        let shown = message.payload.get(..SHOWN_BYTES).unwrap_or(&message.payload);
        let rest = message.payload.len() - shown.len();
        let more = if rest > 0 { format!(" … {rest} bytes more, see --json") } else { String::new() };
        let lines = [
            ("parked message", message.parked_id.clone()),
            ("handler", message.handler.clone()),
            ("message id", message.message_id.clone()),
            ("type", message.message_type.clone()),
            ("routing key", message.routing_key.clone()),
            ("correlation id", message.correlation_id.clone()),
            ("parked", time(message.parked_at.as_ref())),
            ("on its way back", time(message.retry_at.as_ref())),
            ("error", message.error.clone()),
            ("payload", format!("{} bytes: {}{more}", message.payload.len(), hex(shown))),
        ];
        output.record(&whole, &lines);
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Selection {
    async fn retry(
        &self,
        client: &v1::OpsServiceClient,
        settings: &Settings,
        token: &str,
        output: Output,
    ) -> anyhow::Result<()> {
        let call = async || {
            let (parked_ids, handler) = (self.parked_ids.clone(), self.handler.clone().unwrap_or_default());
            let request = v1::RetryParkedMessagesRequest { idempotency_key: key(), parked_ids, handler };
            let reply = client.retry_parked_messages(client::request(request, Some(token))).await;
            Ok(reply.map_err(|status| client::explained(settings, &status))?.into_inner().count)
        };
        let sum = sum(self.handler.is_some(), call).await?;
        output.record(&json!({ "count": sum }), &[("sent back", sum.to_string())]);
        Ok(())
    }

    async fn discard(
        &self,
        client: &v1::OpsServiceClient,
        settings: &Settings,
        token: &str,
        output: Output,
    ) -> anyhow::Result<()> {
        let call = async || {
            let (parked_ids, handler) = (self.parked_ids.clone(), self.handler.clone().unwrap_or_default());
            let request = v1::DiscardParkedMessagesRequest { idempotency_key: key(), parked_ids, handler };
            let reply = client.discard_parked_messages(client::request(request, Some(token))).await;
            Ok(reply.map_err(|status| client::explained(settings, &status))?.into_inner().count)
        };
        let sum = sum(self.handler.is_some(), call).await?;
        output.record(&json!({ "count": sum }), &[("discarded", sum.to_string())]);
        Ok(())
    }
}
