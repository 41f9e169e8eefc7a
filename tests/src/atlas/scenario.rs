//! The load: through everything that the auction does, by clients that make each call again until they know what became
//! of it.
use super::{
    fleet::Fleet,
    history::{Bid, History, Told, until_known},
};
use crate::{
    Api, System,
    api::{Failure, Seen, settle},
    eventually,
};
use chrono::{TimeDelta, Utc};
use futures_util::StreamExt;
use gavel_proto::v1;
use poem_grpc::{Code, Response, Status};
use prost_types::Timestamp;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use uuid::Uuid;

/// A call that nobody answers by then is a fault of its own.
const GIVES_UP: Duration = Duration::from_mins(1);
/// The item that is to be sold ends so long after it was published.
const SOLD_AFTER: TimeDelta = TimeDelta::seconds(2);

/// The first that somebody is told who watches where they stand.
async fn stands(api: &Api) -> Result<(), Failure> {
    let told = api.watch_user("").await?.next().await;
    let first = told.unwrap_or_else(|| Err(Status::new(Code::Unknown))).map(Response::new);
    settle(first, &Seen::default()).map(drop)
}

/// Clients of one case.
pub struct Clients<'a> {
    system: &'a System,
    fleet: &'a Fleet<'a>,
    history: History,
    watched: watch::Sender<String>,
}

impl<'a> Clients<'a> {
    /// Who have done nothing yet.
    pub fn new(system: &'a System, fleet: &'a Fleet<'a>) -> Self {
        Self { system, fleet, history: History::default(), watched: watch::channel(String::new()).0 }
    }

    /// Publishes items, bids on them, is refused, sells one, cancels one, reads.
    pub async fn run(&mut self) {
        let lamp = self.publish("A lamp", TimeDelta::hours(1)).await;
        self.watched.send_replace(lamp.clone());
        // Before the read model has heard of it.
        self.read(&lamp).await;
        let chair = self.publish("A chair", TimeDelta::hours(1)).await;
        // Before anything ends: it would put right what its event has to.
        self.system.rebuild_read_model(async || self.fleet.ops_url().await).await;
        self.bid("alice", &lamp, 1_000).await;
        // Whatever befell the first bid: there is time for one on this.
        let clock = self.publish("A clock", SOLD_AFTER).await;
        self.bid("alice", &clock, 1_000).await;
        // Too low, and said so.
        self.bid("bob", &lamp, 1_001).await;
        self.bid("bob", &lamp, 2_000).await;
        self.bid("alice", &lamp, 3_000).await;
        self.cancel(&chair).await;
        self.read(&lamp).await;
        self.until_sold(&clock).await;
        // Too late.
        self.bid("bob", &clock, 9_000).await;
        self.bid("bob", &lamp, 4_000).await;
    }

    /// The item that somebody is to watch, once it is there.
    pub fn watched(&self) -> watch::Receiver<String> {
        self.watched.subscribe()
    }

    /// What they did so far, and were told.
    pub fn history(self) -> History {
        self.history
    }

    /// Where nobody answers before its end, the item is refused, and another is published in its place.
    pub(super) async fn publish(&mut self, title: &str, lasts: TimeDelta) -> String {
        let (token, fleet) = (self.system.token("sam", "seller"), self.fleet);
        loop {
            let ends_at = Utc::now() + lasts;
            let request = v1::CreateItemRequest {
                idempotency_key: Uuid::new_v4().to_string(),
                title: title.to_owned(),
                currency: "EUR".to_owned(),
                start_price_minor: 1_000,
                ends_at: Some(Timestamp {
                    seconds: ends_at.timestamp(),
                    nanos: ends_at.timestamp_subsec_nanos() as i32,
                }),
                ..v1::CreateItemRequest::default()
            };
            let create = async || fleet.api().await.with_token(token.clone()).create_item(request.clone()).await;
            let (created, unknown) = until_known(GIVES_UP, create).await;
            self.history.note("create_item", unknown);
            match created {
                Ok(created) => {
                    self.history.items.push(created.item_id.clone());
                    return created.item_id;
                }
                Err(failure) if failure.code == Code::InvalidArgument && Utc::now() > ends_at => {}
                Err(failure) => panic!("the item is not published: {failure:?}"),
            }
        }
    }

    async fn bid(&mut self, bidder: &'static str, item_id: &str, amount: i64) {
        let (token, key) = (self.system.token(bidder, "bidder"), Uuid::new_v4().to_string());
        let (fleet, began) = (self.fleet, Instant::now());
        let (result, unknown) = until_known(GIVES_UP, async || {
            fleet.api().await.with_token(token.clone()).bid_with_key(item_id, amount, &key).await
        })
        .await;
        let (told, bidder) = (Told::of(result), bidder.to_owned());
        let (item_id, took) = (item_id.to_owned(), began.elapsed());
        self.history.bids.push(Bid { bidder, item_id, amount, key, unknown, told, took, answered_at: Utc::now() });
    }

    async fn cancel(&mut self, item_id: &str) {
        self.cancel_as("sam", "seller", item_id).await;
    }

    pub(super) async fn cancel_as(&mut self, user: &str, role: &str, item_id: &str) {
        let (token, fleet) = (self.system.token(user, role), self.fleet);
        // Without a key of ours: a second try finds it cancelled.
        let (cancelled, unknown) =
            until_known(GIVES_UP, async || fleet.api().await.with_token(token.clone()).cancel(item_id, "broken").await)
                .await;
        match cancelled {
            Ok(_) => {}
            Err(failure) if !unknown.is_empty() && failure.code == Code::FailedPrecondition => {}
            Err(failure) => panic!("the item can't be cancelled: {failure:?}"),
        }
        self.history.note("cancel_item", unknown);
    }

    /// A reader gets an answer whatever is down.
    async fn read(&mut self, item_id: &str) {
        let (fleet, token) = (self.fleet, self.system.token("alice", "bidder"));
        let known = async || fleet.api().await.with_token(token.clone());
        let history = &mut self.history;
        let (read, unknown) = until_known(GIVES_UP, async || fleet.api().await.item(item_id).await).await;
        read.expect("the item can be read");
        history.note("get_item", unknown);
        let (stats, unknown) = until_known(GIVES_UP, async || known().await.stats("").await).await;
        stats.expect("statistics can be read");
        history.note("get_user_stats", unknown);
        let all = v1::ListItemsRequest::default();
        let (items, unknown) = until_known(GIVES_UP, async || known().await.items(all.clone()).await).await;
        items.expect("items can be listed");
        history.note("list_items", unknown);
        let of_item = v1::ListBidsRequest { item_id: item_id.to_owned(), ..v1::ListBidsRequest::default() };
        let (bids, unknown) = until_known(GIVES_UP, async || known().await.bids(of_item.clone()).await).await;
        bids.expect("bids can be listed");
        history.note("list_bids", unknown);
        let (stands, unknown) = until_known(GIVES_UP, async || stands(&known().await).await).await;
        stands.expect("it can be watched where somebody stands");
        history.note("watch_user", unknown);
    }

    async fn until_sold(&self, item_id: &str) {
        let closed = format!("SELECT count(*) FROM items WHERE item_id = '{item_id}' AND closed_at IS NOT NULL");
        eventually("the item is closed", || self.system.count(&closed), |count| *count == 1).await;
    }
}
