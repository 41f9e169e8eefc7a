//! Takes an item out of the auction for good: its period is cut at this moment, its end recorded without a winner, and
//! an event says so, in one transaction; and the audit where it was an operator.
mod sql;

use crate::schema::bid_ceiling_minor;
use crate::{
    convert::user,
    item::{self, ItemRow},
};
use gavel_operators::audit::{self, Action};
use gavel_proto::{
    events_v1::{ItemCancelled, item_event::Fact},
    v1,
};
use gavel_rules::{Cancellation, Canceller, NotCancelled};
use gavel_runtime::{
    Class, Error, Result, Tx,
    auth::{Access, Caller},
    rpc,
    spec::{Spec, Trigger},
    wire::uuid,
};
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

/// `ItemService.CancelItem`.
pub struct CancelItem;

/// A checked wish to cancel.
#[derive(Serialize)]
pub struct Command {
    item_id: Uuid,
    by: Canceller,
    reason: String,
    /// Where an operator did it. It follows from the others and from who asks, whose the key is.
    #[serde(skip)]
    action: Option<Action>,
}

impl rpc::TxHandler for CancelItem {
    const SPEC: &'static Spec = &Spec::new("cancel_item", Trigger::Rpc("gavel.v1.ItemService/CancelItem"));
    const ACCESS: Access = Access::Roles(&["seller", "ops"]);
    type Request = v1::CancelItemRequest;
    type Command = Command;
    type Reply = v1::CancelItemResponse;

    fn idempotency_key(request: &v1::CancelItemRequest) -> &str {
        &request.idempotency_key
    }

    fn parse(request: v1::CancelItemRequest, caller: &Caller) -> Result<Command> {
        let reason = gavel_rules::reason(&request.reason);
        let reason = reason.map_err(|error| Error::invalid(format!("reason {error}")))?;
        // An operator without a reason may still be the seller.
        let is_operator = caller.has_role("ops") && !reason.is_empty();
        let by = if is_operator { Canceller::Operator } else { Canceller::Seller(user(&caller.subject)?) };
        let action = is_operator.then(|| Action::new(&caller.subject, &reason)).transpose()?;
        Ok(Command { item_id: uuid("item_id", &request.item_id)?, by, reason, action })
    }

    async fn handle(tx: &mut Tx, command: &Command) -> Result<v1::CancelItemResponse> {
        let (ceiling_minor, item) = (bid_ceiling_minor(tx), item::lock(tx, command.item_id).await?);
        let Cancellation { starts_at, ends_at } =
            gavel_rules::cancel(&item.auction(ceiling_minor)?, &command.by, item.read_at)
                .map_err(|why| refused(&why))?;
        let item = ItemRow {
            starts_at,
            ends_at,
            closed_at: Some(ends_at),
            cancel_reason: Some(command.reason.clone()),
            version: item.version + 1,
            ..item
        };
        sql::record(tx, &item).await?;
        if let Some(action) = &command.action {
            let details = json!({ "bid_count": item.bid_count, "leader_id": item.leader_id });
            audit::record(tx, action, "cancel_item", &command.item_id.to_string(), &details).await?;
        }
        tx.emit(item.event(Fact::Cancelled(ItemCancelled {}), ceiling_minor)?)?;
        Ok(v1::CancelItemResponse { item: Some(item::shown(item.state(ceiling_minor)?, item.version, item.read_at)) })
    }
}

fn refused(why: &NotCancelled) -> Error {
    let class = match why {
        NotCancelled::AnothersItem => Class::Denied,
        NotCancelled::HasBids | NotCancelled::Ended { .. } => Class::Refused,
    };
    Error::new(class, why.to_string())
}
