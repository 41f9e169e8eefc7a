//! Places bids, as many as wait at the same time. Their items' rows are locked, the database's clock read under the
//! locks, the rules asked item by item; then the bids, the items' new prices, the events and the receipts are committed
//! together.
mod sql;

use crate::schema::bid_ceiling_minor;
use crate::{
    convert::user,
    item::{self, ItemRow},
};
use gavel_proto::{
    events_v1::{BidAccepted, item_event::Fact},
    v1,
};
use gavel_rules::{Acceptance, Auction, Bid, InvalidAmount, MAX_AMOUNT_MINOR, Refusal, RefusalReason};
use gavel_runtime::{
    Class, Error, Member, Result, Tx,
    auth::{Access, Caller},
    batch::Verdicts,
    failpoint, ids, rpc,
    spec::{Batch, Limits, Spec, Trigger},
    wire::{timestamp, uuid},
};
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};
use uuid::Uuid;

/// `BidService.PlaceBid`.
pub struct PlaceBid;

/// A checked wish to bid.
#[derive(Serialize)]
pub struct Command {
    item_id: Uuid,
    bid: Bid,
}

/// Bids inside at the same time. While the database works these off, it takes the processors from who refuses the next:
/// twice as many accepted no more, and refusals took three times as long (`cargo xtask bench overload`).
const PLACES: usize = 512;

impl rpc::BatchHandler for PlaceBid {
    const SPEC: &'static Spec = &Spec::new("place_bid", Trigger::Rpc("gavel.v1.BidService/PlaceBid"))
        .limits(Limits::DEFAULT.timeout(Duration::from_secs(5)).concurrency(PLACES))
        // An item that everybody wants leaves half of them to all others.
        .batched(Batch::DEFAULT.per_key(PLACES / 2))
        .protected();
    const ACCESS: Access = Access::Roles(&["bidder"]);
    type Request = v1::PlaceBidRequest;
    type Command = Command;
    type Reply = v1::PlaceBidResponse;
    type Key = Uuid;

    fn idempotency_key(request: &v1::PlaceBidRequest) -> &str {
        &request.idempotency_key
    }

    fn parse(request: v1::PlaceBidRequest, caller: &Caller) -> Result<Command> {
        let amount_minor = gavel_rules::amount(request.max_amount_minor).map_err(|InvalidAmount { given }| {
            let allowed = format!("allowed: 1 to {MAX_AMOUNT_MINOR} minor units");
            Error::invalid(format!("max_amount_minor {given} is out of range; {allowed}"))
        })?;
        let bid = Bid { bidder: user(&caller.subject)?, amount_minor };
        Ok(Command { item_id: uuid("item_id", &request.item_id)?, bid })
    }

    fn key(command: &Command) -> Uuid {
        command.item_id
    }

    async fn handle(tx: &mut Tx, batch: &[Member<Command>]) -> Result<Verdicts<v1::PlaceBidResponse>> {
        let by_item = by_item(batch);
        let item_ids: Vec<_> = by_item.keys().copied().collect();
        let mut items = item::lock_all(tx, &item_ids).await?;
        let mut ledger = sql::Ledger::default();
        let mut verdicts: Vec<_> = batch.iter().map(|_| None).collect();
        for (item_id, places) in by_item {
            if let Some(item) = items.get_mut(&item_id) {
                decide(tx, &mut ledger, item, batch, &places, &mut verdicts)?;
            }
        }
        ledger.record(tx, &items).await?;
        let missing = |bid: &Member<Command>| Err(item::missing(bid.input.item_id));
        Ok(batch.iter().zip(verdicts).map(|(bid, verdict)| verdict.unwrap_or_else(|| missing(bid))).collect())
    }
}

/// Where in the batch each item's bids stand, in the order of the items' ids.
fn by_item(batch: &[Member<Command>]) -> BTreeMap<Uuid, Vec<usize>> {
    let mut by_item: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (place, bid) in batch.iter().enumerate() {
        by_item.entry(bid.input.item_id).or_default().push(place);
    }
    by_item
}

/// Decides all bids on one item, and moves its row on with each that is accepted.
fn decide(
    tx: &mut Tx,
    ledger: &mut sql::Ledger,
    item: &mut ItemRow,
    batch: &[Member<Command>],
    places: &[usize],
    verdicts: &mut [Option<Result<v1::PlaceBidResponse>>],
) -> Result<()> {
    let bids: Vec<_> = places.iter().map(|place| &batch[*place].input.bid).collect();
    for bid in &bids {
        failpoint::hit_for("place_bid", "decide", bid.bidder.as_str());
    }
    let mut auction = item.auction(bid_ceiling_minor(tx))?;
    for (nth, verdict) in gavel_rules::decide_all(&mut auction, &bids, item.read_at) {
        let place = places[nth];
        verdicts[place] = Some(match verdict {
            Ok(accepted) => Ok(accept(tx, ledger, (item, auction.ceiling_minor), &batch[place], &accepted)?),
            Err(refusal) => Err(refused(&auction, refusal, &item.currency)),
        });
    }
    Ok(())
}

/// Moves the item on to the bid's price, and writes down the bid and its event.
fn accept(
    tx: &mut Tx,
    ledger: &mut sql::Ledger,
    (item, ceiling_minor): (&mut ItemRow, i64),
    Member { input: Command { bid, .. }, invocation }: &Member<Command>,
    accepted: &Acceptance,
) -> Result<v1::PlaceBidResponse> {
    let bid_id = ids::ordered();
    item.price_minor = Some(accepted.price_minor);
    item.leader_id = Some(bid.bidder.to_string());
    item.bid_count += 1;
    item.version += 1;
    let fact = Fact::BidAccepted(BidAccepted {
        bid_id: bid_id.to_string(),
        bidder_id: bid.bidder.to_string(),
        outbid_user_id: accepted.outbid.as_ref().map(ToString::to_string).unwrap_or_default(),
    });
    tx.emit_for(invocation, item.event(fact, ceiling_minor)?)?;
    ledger.add(bid_id, bid, item);
    Ok(v1::PlaceBidResponse {
        bid_id: bid_id.to_string(),
        outcome: v1::BidOutcome::Leading.into(),
        sequence: item.version,
        price_minor: accepted.price_minor,
        next_minimum_minor: accepted.next_minimum_minor.unwrap_or_default(),
        ends_at: Some(timestamp(item.ends_at)),
        decided_at: Some(timestamp(item.read_at)),
    })
}

fn refused(auction: &Auction, refusal: Refusal, currency: &str) -> Error {
    use v1::BidRefusalReason as Wire;
    let minimum = refusal.next_minimum_minor.unwrap_or_default();
    let (reason, next_minimum_minor) = match refusal.reason {
        RefusalReason::BelowMinimum { .. } => (Wire::BelowMinimum, minimum),
        RefusalReason::AboveCeiling => (Wire::AboveCeiling, minimum),
        RefusalReason::AtCeiling => (Wire::AtCeiling, 0),
        RefusalReason::SellerMayNotBid => (Wire::SellerMayNotBid, 0),
        RefusalReason::NotStarted { .. } => (Wire::NotStarted, minimum),
        RefusalReason::Ended { .. } => (Wire::Ended, 0),
    };
    Error::new(Class::Refused, refusal.reason.explain(auction.ceiling_minor, currency)).with_detail(&v1::BidRefused {
        reason: reason.into(),
        next_minimum_minor,
        maximum_minor: auction.ceiling_minor,
        starts_at: Some(timestamp(auction.starts_at)),
        ends_at: Some(timestamp(auction.ends_at)),
    })
}
