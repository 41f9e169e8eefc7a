//! Publishes an item: its row, the event that says so, and the job that will close it, in one transaction.
mod sql;

use crate::schema::bid_ceiling_minor;
use crate::{convert::user, item::ItemRow, jobs};
use chrono::{DateTime, Utc};
use gavel_proto::{
    events_v1::{ItemCreated, item_event::Fact},
    v1,
};
use gavel_rules::{Ladder, Listing, Moment, Period, UserId};
use gavel_runtime::{
    Error, Result, Tx,
    auth::{Access, Caller},
    ids, rpc,
    spec::{Spec, Trigger},
    wire::{micros, time},
};
use prost_types::Timestamp;
use serde::Serialize;

/// `ItemService.CreateItem`.
pub struct CreateItem;

/// A checked wish to sell.
#[derive(Serialize)]
pub struct Command {
    seller: UserId,
    listing: Listing,
}

impl rpc::TxHandler for CreateItem {
    const SPEC: &'static Spec = &Spec::new("create_item", Trigger::Rpc("gavel.v1.ItemService/CreateItem"));
    const ACCESS: Access = Access::Roles(&["seller", "ops"]);
    type Request = v1::CreateItemRequest;
    type Command = Command;
    type Reply = v1::CreateItemResponse;

    fn idempotency_key(request: &v1::CreateItemRequest) -> &str {
        &request.idempotency_key
    }

    fn parse(request: v1::CreateItemRequest, caller: &Caller) -> Result<Command> {
        let starts = moment(("starts_at", request.starts_at), ("starts_in", request.starts_in))?;
        let ends = moment(("ends_at", request.ends_at), ("ends_in", request.ends_in))?;
        let missing = || Error::invalid("ends_at is missing; allowed: a point in time, or ends_in, a duration");
        let ends = ends.ok_or_else(missing)?;
        let listing = Listing::new(&request.title, &request.currency, request.start_price_minor, starts, ends);
        Ok(Command { seller: user(&caller.subject)?, listing: listing.map_err(Error::invalid)? })
    }

    async fn handle(tx: &mut Tx, command: &Command) -> Result<v1::CreateItemResponse> {
        let (listing, ceiling_minor) = (&command.listing, bid_ceiling_minor(tx));
        listing.check_price(ceiling_minor).map_err(Error::invalid)?;
        let clock = sql::clock(tx).await?;
        let Period { starts_at, ends_at } = listing.check_times(clock.now).map_err(Error::invalid)?;
        let item = ItemRow {
            item_id: ids::ordered(),
            seller_id: command.seller.to_string(),
            title: listing.title.clone(),
            currency: listing.currency.code().to_owned(),
            start_price_minor: listing.start_price_minor,
            ladder_version: Ladder::CURRENT.version(),
            price_minor: None,
            leader_id: None,
            bid_count: 0,
            version: 1,
            starts_at,
            ends_at,
            closed_at: None,
            cancel_reason: None,
            read_at: clock.now,
        };
        sql::insert(tx, &item).await?;
        tx.emit(item.event(Fact::Created(ItemCreated {}), ceiling_minor)?)?;
        // The queue counts delays from the transaction's begin.
        let due_in = |at: DateTime<Utc>| (at - clock.transaction_began).to_std().unwrap_or_default();
        tx.enqueue(&jobs::CloseItem { item_id: item.item_id }, due_in(item.ends_at)).await?;
        if item.starts_at > clock.now {
            tx.enqueue(&jobs::StartItem { item_id: item.item_id }, due_in(item.starts_at)).await?;
        }
        Ok(v1::CreateItemResponse {
            item: Some(crate::item::shown(item.state(ceiling_minor)?, item.version, clock.now)),
        })
    }
}

/// A moment that may be given in either of two ways, and not in both.
fn moment(
    (at_field, at): (&str, Option<Timestamp>),
    (in_field, within): (&str, Option<prost_types::Duration>),
) -> Result<Option<Moment>> {
    match (at, within) {
        (None, None) => Ok(None),
        (Some(at), None) => Ok(Some(Moment::At(time(at_field, at)?))),
        (None, Some(within)) => Ok(Some(Moment::InMicros(micros(in_field, &within)?))),
        (Some(_), Some(_)) => {
            Err(Error::invalid(format!("{at_field} and {in_field} are both given; allowed: one of them")))
        }
    }
}
