//! Places bids, as many as wait at the same time. Their items' rows are locked, the database's clock read under the locks,
//! the rules asked for one bid after another, from the lowest to the highest; then the bids, the items' new prices, the
//! events and the receipts are committed together.
mod sql;

use crate::{
    convert::{timestamp, user, uuid},
    item::{self, ItemRow, Locked, routing_key},
};
use gavel_proto::{
    events_v1::{BidAccepted, item_event::Fact},
    v1,
};
use gavel_rules::{Auction, BID_CEILING_MINOR, Bid, Refusal, RefusalReason};
use gavel_runtime::{
    Class, Error, Member, Result, Tx,
    auth::{Access, Caller},
    batch::Verdicts,
    fault, ids, rpc,
    spec::{Batch, Limits, Spec, Trigger},
};
use std::{collections::HashMap, time::Duration};
use uuid::Uuid;

/// `BidService.PlaceBid`.
pub struct PlaceBid;

/// A checked wish to bid.
pub struct Command {
    item_id: Uuid,
    bid: Bid,
}

impl rpc::BatchHandler for PlaceBid {
    const SPEC: &'static Spec = &Spec::new("place_bid", Trigger::Rpc("gavel.v1.BidService/PlaceBid"))
        .limits(Limits::DEFAULT.timeout(Duration::from_secs(5)).concurrency(1_024))
        .batched(Batch::DEFAULT.per_key(512));
    const ACCESS: Access = Access::Roles(&["bidder"]);
    type Request = v1::PlaceBidRequest;
    type Command = Command;
    type Reply = v1::PlaceBidResponse;
    type Key = Uuid;

    fn idempotency_key(request: &v1::PlaceBidRequest) -> &str {
        &request.idempotency_key
    }

    fn parse(request: v1::PlaceBidRequest, caller: &Caller) -> Result<Command> {
        let amount_minor = gavel_rules::amount(request.max_amount_minor).map_err(Error::invalid)?;
        let bid = Bid { bidder: user(&caller.subject)?, amount_minor };
        Ok(Command { item_id: uuid("item_id", &request.item_id)?, bid })
    }

    fn key(command: &Command) -> Uuid {
        command.item_id
    }

    async fn handle(tx: &mut Tx, batch: &[Member<Command>]) -> Result<Verdicts<v1::PlaceBidResponse>> {
        let mut item_ids: Vec<_> = batch.iter().map(|bid| bid.input.item_id).collect();
        item_ids.sort_unstable();
        item_ids.dedup();
        let mut items = item::lock_all(tx, &item_ids).await?;
        let mut ledger = sql::Ledger::default();
        let highest = highest(&items, batch)?;
        let mut verdicts: Vec<_> = batch.iter().map(|_| None).collect();
        let mut later = Vec::new();
        for place_of in from_lowest(batch) {
            let bid = &batch[place_of];
            if stands_in_the_way(&items, &highest, &bid.input)? {
                later.push(place_of);
            } else {
                verdicts[place_of] = Some(place(tx, &mut items, &mut ledger, bid));
            }
        }
        for place_of in later {
            verdicts[place_of] = Some(place(tx, &mut items, &mut ledger, &batch[place_of]));
        }
        ledger.record(tx, &items).await?;
        Ok(verdicts.into_iter().flatten().collect())
    }
}

/// The bids of one batch are simultaneous: all are decided at the same instant of the database's clock. So that chance does
/// not refuse a bid that was high enough when that instant came, the lowest is decided first; of equal ones, the one that
/// came first.
fn from_lowest(batch: &[Member<Command>]) -> Vec<usize> {
    let mut order: Vec<_> = (0..batch.len()).collect();
    order.sort_by_key(|place_of| batch[*place_of].input.bid.amount_minor);
    order
}

/// The highest amount on each item that would be accepted if its bid were the only one.
fn highest(items: &HashMap<Uuid, Locked>, batch: &[Member<Command>]) -> Result<HashMap<Uuid, i64>> {
    let mut highest: HashMap<Uuid, i64> = HashMap::new();
    for Member { input: Command { item_id, bid }, .. } in batch {
        let Some(Locked { item, now }) = items.get(item_id) else { continue };
        if gavel_rules::decide(&item.auction()?, bid, *now).is_ok() {
            let highest = highest.entry(*item_id).or_default();
            *highest = bid.amount_minor.max(*highest);
        }
    }
    Ok(highest)
}

/// Whether the bid, accepted now, would raise the next minimum above the highest one: that one comes first then. So the
/// highest of simultaneous bids leads in the end, whatever else was bid.
fn stands_in_the_way(
    items: &HashMap<Uuid, Locked>,
    highest: &HashMap<Uuid, i64>,
    Command { item_id, bid }: &Command,
) -> Result<bool> {
    let (Some(Locked { item, now }), Some(highest)) = (items.get(item_id), highest.get(item_id)) else {
        return Ok(false);
    };
    let accepted = gavel_rules::decide(&item.auction()?, bid, *now);
    Ok(accepted.is_ok_and(|accepted| bid.amount_minor < *highest && accepted.next_minimum_minor > *highest))
}

/// Decides one bid on the item as the bids before it have left it.
fn place(
    tx: &mut Tx,
    items: &mut HashMap<Uuid, Locked>,
    ledger: &mut sql::Ledger,
    Member { input: Command { item_id, bid }, invocation }: &Member<Command>,
) -> Result<v1::PlaceBidResponse> {
    fault::point_for("place_bid", "decide", bid.bidder.as_str());
    let Locked { item, now } = items.get_mut(item_id).ok_or_else(|| item::missing(*item_id))?;
    let auction = item.auction()?;
    let accepted = gavel_rules::decide(&auction, bid, *now).map_err(|refusal| refused(&auction, refusal))?;
    let bid_id = ids::ordered();
    let after = ItemRow {
        price_minor: Some(accepted.price_minor),
        leader_id: Some(bid.bidder.to_string()),
        bid_count: item.bid_count + 1,
        version: item.version + 1,
        ..item.clone()
    };
    let fact = Fact::BidAccepted(BidAccepted {
        bid_id: bid_id.to_string(),
        bidder_id: bid.bidder.to_string(),
        outbid_user_id: accepted.outbid.map(|outbid| outbid.to_string()).unwrap_or_default(),
    });
    let event = after.event(routing_key::BID_ACCEPTED, *now, fact)?;
    ledger.add(bid_id, bid, &after, *now)?;
    tx.emit_for(invocation, event);
    *item = after;
    Ok(v1::PlaceBidResponse {
        bid_id: bid_id.to_string(),
        outcome: v1::BidOutcome::Leading.into(),
        sequence: item.version,
        price_minor: accepted.price_minor,
        next_minimum_minor: accepted.next_minimum_minor,
        ends_at: Some(timestamp(item.ends_at)),
        decided_at: Some(timestamp(*now)),
    })
}

fn refused(auction: &Auction, refusal: Refusal) -> Error {
    use v1::BidRefusalReason as Wire;
    let (reason, next_minimum_minor) = match refusal.reason {
        RefusalReason::BelowMinimum { .. } => (Wire::BelowMinimum, refusal.next_minimum_minor),
        RefusalReason::AboveCeiling => (Wire::AboveCeiling, refusal.next_minimum_minor),
        RefusalReason::SellerMayNotBid => (Wire::SellerMayNotBid, 0),
        RefusalReason::NotStarted { .. } => (Wire::NotStarted, refusal.next_minimum_minor),
        RefusalReason::Ended { .. } => (Wire::Ended, 0),
    };
    Error::new(Class::Refused, refusal.to_string()).with_detail(&v1::BidRefused {
        reason: reason.into(),
        next_minimum_minor,
        maximum_minor: BID_CEILING_MINOR,
        starts_at: Some(timestamp(auction.starts_at)),
        ends_at: Some(timestamp(auction.ends_at)),
    })
}
