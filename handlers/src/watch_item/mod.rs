//! One item as it changes: a snapshot, then whatever is newer, for as long as the client listens.
use crate::schema::bid_ceiling_minor;
use crate::{
    item::{self, routing_key, shown, shown_just_then},
    live::heartbeat,
};
use chrono::{DateTime, Utc};
use gavel_proto::{
    events_v1::{ItemEvent, ItemState},
    v1::{self, ItemStatus, WatchItemResponse, watch_item_response::Frame},
};
use gavel_runtime::{
    Io, Result,
    auth::{Access, Caller},
    live::{Feed, News, Reconciled, Topics},
    rpc::{self, Encoded, Sink},
    spec::{Limits, Spec, Trigger},
    wire::{uuid, whole_number},
};
use std::cmp::Ordering;
use uuid::Uuid;

/// Items, by their ids.
pub struct ItemFeed;

/// An item as everyone sees it. Its update is encoded once, however many watch it.
pub struct Watched {
    state: ItemState,
    version: i64,
    update: Encoded<WatchItemResponse>,
}

impl Watched {
    fn of(state: ItemState, version: i64) -> Self {
        let item = shown_just_then(state.clone(), version);
        let update = Encoded::of(&WatchItemResponse { frame: Some(Frame::Update(item::update(&item))) });
        Self { state, version, update }
    }

    fn snapshot(&self, now: DateTime<Utc>) -> Encoded<WatchItemResponse> {
        let item = shown(self.state.clone(), self.version, now);
        Encoded::of(&WatchItemResponse { frame: Some(Frame::Snapshot(item)) })
    }
}

impl Feed for ItemFeed {
    const SPEC: &'static Spec = &Spec::new(
        "item_feed",
        Trigger::Broadcast(&[
            routing_key::STARTED,
            routing_key::BID_ACCEPTED,
            routing_key::CLOSED,
            routing_key::CANCELLED,
        ]),
    );
    type Message = ItemEvent;
    type State = Watched;

    fn topics(event: &ItemEvent) -> Topics {
        Topics::These(event.item.iter().map(|item| item.item_id.clone()).collect())
    }

    async fn load(io: &Io, item_id: &str) -> Result<Watched> {
        let row = item::read(io.reads(), uuid("item_id", item_id)?).await?;
        Ok(Watched::of(row.state(bid_ceiling_minor(io))?, row.version))
    }

    /// An event carries all of its item: the newest is enough.
    fn apply(held: &mut Watched, _: &str, event: &ItemEvent) -> bool {
        let Some(item) = event.item.as_ref().filter(|_| event.version > held.version) else { return false };
        *held = Watched::of(item.clone(), event.version);
        true
    }

    fn reconcile(held: &mut Watched, loaded: Watched) -> Reconciled {
        let found = match loaded.version.cmp(&held.version) {
            Ordering::Equal if loaded.state == held.state => return Reconciled::Same,
            Ordering::Greater => Reconciled::Newer,
            Ordering::Equal | Ordering::Less => Reconciled::Repaired,
        };
        *held = loaded;
        found
    }
}

/// `ItemService.WatchItem`.
pub struct WatchItem;

/// Which item, and which version of it is known.
pub struct Query {
    item_id: Uuid,
    known_version: i64,
}

impl rpc::StreamHandler for WatchItem {
    const SPEC: &'static Spec = &Spec::new("watch_item", Trigger::Rpc("gavel.v1.ItemService/WatchItem"))
        .limits(Limits::DEFAULT.concurrency(10_000));
    const ACCESS: Access = Access::Public;
    type Request = v1::WatchItemRequest;
    type Query = Query;
    type Reply = WatchItemResponse;

    fn parse(request: v1::WatchItemRequest, _: Option<&Caller>) -> Result<Query> {
        let known_version = whole_number("known_version", request.known_version)?;
        Ok(Query { item_id: uuid("item_id", &request.item_id)?, known_version })
    }

    async fn handle(io: &Io, query: &Query, out: &Sink<WatchItemResponse>) -> Result<()> {
        let mut watch = io.watch::<ItemFeed>(&query.item_id.to_string())?;
        let (mut told, mut told_status) = (query.known_version, None);
        loop {
            let news = watch.next().await?;
            let now = io.now();
            let (version, status) = watch.read(|held| (held.version, item::status(&held.state, now)));
            // A snapshot also where the version is lower than the one the client says it has: the database is right.
            // And where only time has changed something.
            let is_by_time = match status {
                // An update is as of the moment at which something happened: then bids were still taken.
                ItemStatus::Closing => told_status != Some(status) || version > told,
                ItemStatus::Open => told_status == Some(ItemStatus::Scheduled) && version == told,
                _ => false,
            };
            if is_by_time || (news == News::Loaded && version != told) {
                out.send_encoded(watch.read(|held| held.snapshot(now))).await?;
                (told, told_status) = (version, Some(status));
            } else if version > told {
                // With a pulse as well: what has come meanwhile may not have been told of yet.
                out.send_encoded(watch.read(|held| held.update.clone())).await?;
                let just_then = if item::is_over(status) { status } else { ItemStatus::Open };
                (told, told_status) = (version, Some(just_then));
            }
            if news != News::Changed {
                let heartbeat = heartbeat(watch.pulse(), told);
                out.send(WatchItemResponse { frame: Some(Frame::Heartbeat(heartbeat)) }).await?;
            }
            if item::is_over(status) && told == version {
                return Ok(());
            }
        }
    }
}
