//! Parked messages, for operators: list, look, send back to their consumer, discard.
use crate::{
    audit::{self, Action, Asked},
    redeliver_message::RedeliverMessage,
};
use gavel_proto::v1;
use gavel_runtime::{
    Error, Io, Result, Tx,
    auth::{Access, Caller},
    job::{Options, Unique},
    message::parking::{self, Parked, Selection},
    rpc,
    spec::{Spec, Trigger},
    wire::{PageKey, page, page_key, page_size, selection, texts, timestamp, uuid},
};
use serde_json::json;
use uuid::Uuid;

const OPS: Access = Access::Roles(&["ops"]);

fn shown(parked: Parked, payload: Vec<u8>) -> v1::ParkedMessage {
    v1::ParkedMessage {
        parked_id: parked.parked_id.to_string(),
        handler: parked.handler,
        message_id: parked.message_id,
        message_type: parked.message_type,
        routing_key: parked.routing_key,
        correlation_id: parked.correlation_id,
        error: parked.error,
        parked_at: Some(timestamp(parked.parked_at)),
        payload_bytes: parked.payload_bytes,
        retry_at: parked.retry_at.map(timestamp),
        payload,
    }
}

/// `OpsService.ListParkedMessages`.
pub struct ListParkedMessages;

/// A checked request for a page.
pub struct Query {
    handler: Option<String>,
    size: i64,
    after: Option<PageKey>,
}

impl rpc::IoHandler for ListParkedMessages {
    const SPEC: &'static Spec =
        &Spec::new("list_parked_messages", Trigger::Rpc("gavel.v1.OpsService/ListParkedMessages")).for_operators();
    const ACCESS: Access = OPS;
    type Request = v1::ListParkedMessagesRequest;
    type Query = Query;
    type Reply = v1::ListParkedMessagesResponse;

    fn parse(request: v1::ListParkedMessagesRequest, _: Option<&Caller>) -> Result<Query> {
        let handler = Some(request.handler).filter(|handler| !handler.is_empty());
        Ok(Query { handler, size: page_size(request.page_size)?, after: page_key(&request.page_token)? })
    }

    async fn handle(io: &Io, query: &Query) -> Result<v1::ListParkedMessagesResponse> {
        let after = query.after.map(|key| (key.at, key.id));
        let rows = parking::list(io.reads(), query.handler.as_deref(), after, query.size + 1).await?;
        let (rows, next_page_token) =
            page(rows, query.size, |row| PageKey { at: row.parked_at, id: row.parked_id }.to_string());
        let messages = rows.into_iter().map(|row| shown(row, Vec::new())).collect();
        Ok(v1::ListParkedMessagesResponse { messages, next_page_token })
    }
}

/// `OpsService.GetParkedMessage`.
pub struct GetParkedMessage;

impl rpc::IoHandler for GetParkedMessage {
    const SPEC: &'static Spec =
        &Spec::new("get_parked_message", Trigger::Rpc("gavel.v1.OpsService/GetParkedMessage")).for_operators();
    const ACCESS: Access = OPS;
    type Request = v1::GetParkedMessageRequest;
    type Query = Uuid;
    type Reply = v1::GetParkedMessageResponse;

    fn parse(request: v1::GetParkedMessageRequest, _: Option<&Caller>) -> Result<Uuid> {
        uuid("parked_id", &request.parked_id)
    }

    async fn handle(io: &Io, parked_id: &Uuid) -> Result<v1::GetParkedMessageResponse> {
        let found = parking::get(io.reads(), *parked_id).await?;
        let (parked, payload) =
            found.ok_or_else(|| Error::not_found(format!("there is no parked message {parked_id}")))?;
        Ok(v1::GetParkedMessageResponse { message: Some(shown(parked, payload)) })
    }
}

fn parked(ids: &[String], handler: String) -> Result<Selection> {
    selection(("parked_ids", ids), ("handler", handler), parking::MAX_SELECTED, Selection::Ids, Selection::Of)
}

/// `OpsService.RetryParkedMessages`.
pub struct RetryParkedMessages;

impl rpc::TxHandler for RetryParkedMessages {
    const SPEC: &'static Spec =
        &Spec::new("retry_parked_messages", Trigger::Rpc("gavel.v1.OpsService/RetryParkedMessages")).for_operators();
    const ACCESS: Access = OPS;
    type Request = v1::RetryParkedMessagesRequest;
    type Command = Asked<Selection>;
    type Reply = v1::RetryParkedMessagesResponse;

    fn idempotency_key(request: &v1::RetryParkedMessagesRequest) -> &str {
        &request.idempotency_key
    }

    fn parse(request: v1::RetryParkedMessagesRequest, caller: &Caller) -> Result<Asked<Selection>> {
        let action = Action::perhaps_with(&request.reason, &caller.subject)?;
        Ok(Asked { what: parked(&request.parked_ids, request.handler)?, action })
    }

    async fn handle(
        tx: &mut Tx,
        Asked { what: selection, action }: &Asked<Selection>,
    ) -> Result<v1::RetryParkedMessagesResponse> {
        let missing = parking::missing(tx, selection).await?;
        let marked = parking::mark_for_retry(tx, selection).await?;
        for parked_id in &marked {
            let once = Options::new().unique(Unique::Keep(parked_id.to_string()));
            tx.enqueue(&RedeliverMessage { parked_id: *parked_id }, once).await?;
        }
        audit::record(
            tx,
            action,
            "retry_parked_messages",
            &audit::target(selection),
            &json!({ "count": marked.len() }),
        )
        .await?;
        tracing::info!(
            count = marked.len(),
            ?selection,
            by = action.by,
            reason = action.reason,
            "parked messages are sent back"
        );
        Ok(v1::RetryParkedMessagesResponse {
            count: i64::try_from(marked.len()).unwrap_or(i64::MAX),
            missing: texts(&missing),
        })
    }
}

/// `OpsService.DiscardParkedMessages`.
pub struct DiscardParkedMessages;

impl rpc::TxHandler for DiscardParkedMessages {
    const SPEC: &'static Spec =
        &Spec::new("discard_parked_messages", Trigger::Rpc("gavel.v1.OpsService/DiscardParkedMessages"))
            .for_operators();
    const ACCESS: Access = OPS;
    type Request = v1::DiscardParkedMessagesRequest;
    type Command = Asked<Selection>;
    type Reply = v1::DiscardParkedMessagesResponse;

    fn idempotency_key(request: &v1::DiscardParkedMessagesRequest) -> &str {
        &request.idempotency_key
    }

    fn parse(request: v1::DiscardParkedMessagesRequest, caller: &Caller) -> Result<Asked<Selection>> {
        let action = Action::perhaps_with(&request.reason, &caller.subject)?;
        Ok(Asked { what: parked(&request.parked_ids, request.handler)?, action })
    }

    async fn handle(
        tx: &mut Tx,
        Asked { what: selection, action }: &Asked<Selection>,
    ) -> Result<v1::DiscardParkedMessagesResponse> {
        let missing = parking::missing(tx, selection).await?;
        let count = parking::discard(tx, selection).await?;
        audit::record(tx, action, "discard_parked_messages", &audit::target(selection), &json!({ "count": count }))
            .await?;
        tracing::info!(count, ?selection, by = action.by, reason = action.reason, "parked messages discarded");
        Ok(v1::DiscardParkedMessagesResponse {
            count: i64::try_from(count).unwrap_or(i64::MAX),
            missing: texts(&missing),
        })
    }
}
