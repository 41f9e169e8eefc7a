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

/// What a client has been told of an item.
struct Told {
    version: i64,
    /// None where only the client says what it knows.
    status: Option<ItemStatus>,
}

impl Told {
    /// What is to be said now, if anything; it is then told.
    fn next(
        &mut self,
        held: &Watched,
        status: ItemStatus,
        news: News,
        now: DateTime<Utc>,
    ) -> Option<Encoded<WatchItemResponse>> {
        // A snapshot also where the version is lower than the one the client says it has: the database is right.
        // And where only time has changed something.
        let is_by_time = match status {
            // An update is as of the moment at which something happened: then bids were still taken.
            ItemStatus::Closing => self.status != Some(status) || held.version > self.version,
            ItemStatus::Open => self.status == Some(ItemStatus::Scheduled) && held.version == self.version,
            _ => false,
        };
        if is_by_time || (news == News::Loaded && held.version != self.version) {
            *self = Self { version: held.version, status: Some(status) };
            return Some(held.snapshot(now));
        }
        // With a pulse as well: what has come meanwhile may not have been told of yet.
        (held.version > self.version).then(|| {
            let just_then = if item::is_over(status) { status } else { ItemStatus::Open };
            *self = Self { version: held.version, status: Some(just_then) };
            held.update.clone()
        })
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
        let mut told = Told { version: query.known_version, status: None };
        loop {
            let news = watch.next().await?;
            let now = io.now();
            // All of it of one state: it moves on meanwhile.
            let (version, is_over, frame) = watch.read(|held| {
                let status = item::status(&held.state, now);
                (held.version, item::is_over(status), told.next(held, status, news, now))
            });
            if let Some(frame) = frame {
                out.send_encoded(frame).await?;
            }
            if news != News::Changed {
                let heartbeat = heartbeat(watch.pulse(), told.version);
                out.send(WatchItemResponse { frame: Some(Frame::Heartbeat(heartbeat)) }).await?;
            }
            if is_over && told.version == version {
                return Ok(());
            }
        }
    }
}
