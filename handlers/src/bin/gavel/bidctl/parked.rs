//! Messages that no try could handle.
use crate::bidctl::{
    jobs::none_if_empty,
    ops::{Done, Ops, PAGE, key, limit, pages, sum},
    output::{Output, optional_time, time},
    settings::Settings,
    watch::Watch,
    why::Why,
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
    Retry(Retry),
    /// Delete parked messages for good
    Discard(Discard),
}

#[derive(Args)]
pub(crate) struct List {
    /// Only of this consumer
    #[arg(long)]
    handler: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 20, value_parser = limit)]
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
#[group(required = true, multiple = false)]
pub(crate) struct Selection {
    /// Their ids
    #[arg(value_name = "PARKED_ID")]
    parked_ids: Vec<String>,
    /// All of this consumer
    #[arg(long)]
    handler: Option<String>,
}

#[derive(Args)]
pub(crate) struct Retry {
    #[command(flatten)]
    which: Selection,
    #[command(flatten)]
    why: Why,
}

#[derive(Args)]
pub(crate) struct Discard {
    #[command(flatten)]
    which: Selection,
    #[command(flatten)]
    why: Why,
    /// Really: what is discarded is gone
    #[arg(long)]
    yes: bool,
}

impl Parked {
    pub(crate) async fn run(&self, settings: &Settings, output: Output) -> anyhow::Result<()> {
        let ops = &Ops::new(settings)?;
        match self {
            Self::List(list) => list.watch.run(output, |output| list.show(ops, output)).await,
            Self::Show(show) => show.run(ops, output).await,
            Self::Retry(retry) => retry.which.retry(ops, &retry.why, output).await,
            Self::Discard(discard) if discard.yes => discard.which.discard(ops, &discard.why, output).await,
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
    async fn show(&self, ops: &Ops<'_>, output: Output) -> anyhow::Result<()> {
        let page = async |page_token| {
            let handler = self.handler.clone().unwrap_or_default();
            let request = v1::ListParkedMessagesRequest { handler, page_size: PAGE, page_token };
            let page = ops.said(ops.client.list_parked_messages(ops.request(request)).await)?;
            Ok((page.messages, page.next_page_token))
        };
        let (parked, is_more) = pages(self.limit, page).await?;
        if let Some(handler) = self.handler.as_ref().filter(|_| parked.is_empty()) {
            ops.check_consumer(handler).await?;
        }
        let row = |message: &v1::ParkedMessage| {
            vec![
                message.parked_id.clone(),
                message.handler.clone(),
                message.message_type.clone(),
                message.routing_key.clone(),
                time(message.parked_at.as_ref()),
                if message.retry_at.is_some() { "on its way back".to_owned() } else { message.error.clone() },
            ]
        };
        let rows: Vec<_> = parked.iter().map(row).collect();
        let json = json!({ "messages": parked.iter().map(as_json).collect::<Vec<_>>(), "more": is_more });
        output.table(&json, &["parked message", "handler", "type", "routing key", "parked", "error"], &rows);
        output.more(is_more);
        Ok(())
    }
}

impl Show {
    async fn run(&self, ops: &Ops<'_>, output: Output) -> anyhow::Result<()> {
        let request = v1::GetParkedMessageRequest { parked_id: self.parked_id.clone() };
        let message = ops.said(ops.client.get_parked_message(ops.request(request)).await)?.message;
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
    /// Where nothing was, the consumer may be spelled wrong.
    async fn done(&self, ops: &Ops<'_>, done: Done) -> anyhow::Result<Done> {
        match &self.handler {
            Some(handler) if done.count == 0 => ops.check_consumer(handler).await.map(|()| done),
            _ => Ok(done),
        }
    }

    async fn retry(&self, ops: &Ops<'_>, why: &Why, output: Output) -> anyhow::Result<()> {
        let call = async || {
            let (parked_ids, handler) = (self.parked_ids.clone(), self.handler.clone().unwrap_or_default());
            let request =
                v1::RetryParkedMessagesRequest { idempotency_key: key(), parked_ids, handler, reason: why.said() };
            let done = ops.said(ops.client.retry_parked_messages(ops.request(request)).await)?;
            Ok(Done { count: done.count, missing: done.missing })
        };
        self.done(ops, sum(self.handler.is_some(), call).await?).await?.say("sent back", output)
    }

    async fn discard(&self, ops: &Ops<'_>, why: &Why, output: Output) -> anyhow::Result<()> {
        let call = async || {
            let (parked_ids, handler) = (self.parked_ids.clone(), self.handler.clone().unwrap_or_default());
            let request =
                v1::DiscardParkedMessagesRequest { idempotency_key: key(), parked_ids, handler, reason: why.said() };
            let done = ops.said(ops.client.discard_parked_messages(ops.request(request)).await)?;
            Ok(Done { count: done.count, missing: done.missing })
        };
        self.done(ops, sum(self.handler.is_some(), call).await?).await?.say("discarded", output)
    }
}
