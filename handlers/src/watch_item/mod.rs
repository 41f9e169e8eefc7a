//! One item as it changes: a snapshot, then whatever is newer, for as long as the client listens.
use crate::{
    convert::{uuid, whole_number},
    item::{self, routing_key, shown},
    live::heartbeat,
};
use gavel_proto::{
    events_v1::ItemEvent,
    v1::{self, WatchItemResponse, watch_item_response::Frame},
};
use gavel_runtime::{
    Io, Result,
    auth::{Access, Caller},
    live::{Feed, News},
    rpc::{self, Encoded, Sink},
    spec::{Limits, Spec, Trigger},
};
use uuid::Uuid;

/// Items, by their ids.
pub struct ItemFeed;

/// An item as everyone sees it. Its update is encoded once, however many watch it.
pub struct Shown {
    item: v1::Item,
    update: Encoded<WatchItemResponse>,
}

impl Shown {
    fn of(item: v1::Item) -> Self {
        let update = Encoded::of(&WatchItemResponse { frame: Some(Frame::Update(update(&item))) });
        Self { item, update }
    }

    /// The version, whether it is the last, and what to send of it.
    fn frame(&self, news: News) -> (i64, bool, Option<Encoded<WatchItemResponse>>) {
        let frame = match news {
            News::Loaded => Some(Encoded::of(&WatchItemResponse { frame: Some(Frame::Snapshot(self.item.clone())) })),
            // With a pulse as well: what has come meanwhile may not have been told of yet.
            News::Changed | News::Pulse => Some(self.update.clone()),
        };
        (self.item.version, self.item.status == v1::ItemStatus::Closed as i32, frame)
    }
}

impl Feed for ItemFeed {
    const SPEC: &'static Spec =
        &Spec::new("item_feed", Trigger::Broadcast(&[routing_key::BID_ACCEPTED, routing_key::CLOSED]));
    type Message = ItemEvent;
    type State = Shown;

    fn topics(event: &ItemEvent) -> Vec<String> {
        event.item.iter().map(|item| item.item_id.clone()).collect()
    }

    async fn load(io: &Io, item_id: &str) -> Result<Shown> {
        let row = item::read(io.reads(), uuid("item_id", item_id)?).await?;
        Ok(Shown::of(shown(row.state()?, row.version)))
    }

    /// An event carries all of its item: the newest is enough.
    fn apply(state: &mut Shown, _: &str, event: &ItemEvent) -> bool {
        let Some(item) = event.item.as_ref().filter(|_| event.version > state.item.version) else { return false };
        *state = Shown::of(shown(item.clone(), event.version));
        true
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
        let mut told = query.known_version;
        loop {
            let news = watch.next().await?;
            let (version, is_closed, frame) = watch.read(|shown| shown.frame(news));
            // A snapshot also where the version is lower than the one the client says it has: the database is right.
            let is_new = if news == News::Loaded { version != told } else { version > told };
            if let Some(frame) = frame.filter(|_| is_new) {
                told = version;
                out.send_encoded(frame).await?;
            }
            if news != News::Changed {
                let heartbeat = heartbeat(watch.pulse(), told);
                out.send(WatchItemResponse { frame: Some(Frame::Heartbeat(heartbeat)) }).await?;
            }
            if is_closed && told == version {
                return Ok(());
            }
        }
    }
}

/// What of an item may change.
fn update(item: &v1::Item) -> v1::ItemUpdate {
    v1::ItemUpdate {
        version: item.version,
        price_minor: item.price_minor,
        next_minimum_minor: item.next_minimum_minor,
        leader: item.leader.clone(),
        bid_count: item.bid_count,
        status: item.status,
        ends_at: item.ends_at,
        closed_at: item.closed_at,
    }
}
