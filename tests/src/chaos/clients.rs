//! Who buys, who sells and who watches meanwhile: each knows in the end what became of whatever they asked for.
use super::fleet::Fleet;
use crate::{
    Api, Failure, System,
    atlas::history::{Bid, History, Told, until_known},
    watching::follow,
};
use chrono::{TimeDelta, Utc};
use fastrand::Rng;
use poem_grpc::Code;
use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

/// A call that nobody answers by then, whatever is broken meanwhile, is a fault of its own.
const GIVES_UP: Duration = Duration::from_mins(3);
/// Items that are open at a time.
const OPEN: usize = 8;
/// An item's life, in milliseconds.
const LIVES_MS: std::ops::Range<i64> = 4_000..45_000;
/// Between two of a client's calls, in milliseconds.
const PAUSE_MS: std::ops::Range<u64> = 50..300;
/// One bidder in so many leaves in the middle, and comes back.
const LEAVES: u8 = 12;
/// One item in so many is cancelled, if nobody has bid yet.
const CANCELLED: u8 = 6;
/// Somebody looks at a stream for so long.
const WATCHES: Duration = Duration::from_secs(10);

/// An item that takes bids, as far as anybody knows.
#[derive(Debug, Clone)]
struct Lot {
    item_id: String,
    minimum_minor: i64,
}

/// What all clients share.
pub struct Market<'a> {
    system: &'a System,
    fleet: &'a Fleet<'a>,
    lots: Mutex<Vec<Lot>>,
    history: Mutex<History>,
    is_over: AtomicBool,
    /// When a bid was last acknowledged, and the longest time without one.
    pace: Mutex<(Instant, Duration)>,
    given_up: AtomicI64,
    frames: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

/// What they know in the end.
pub struct Known {
    /// What bidders and sellers were told.
    pub history: History,
    /// The longest time in which no bid was acknowledged.
    pub longest_without: Duration,
    /// Items that nobody answered for before their end: each may be there.
    pub given_up: i64,
    /// Frames that watchers saw.
    pub frames: u64,
    /// What watchers saw that must not be.
    pub wrong: Vec<String>,
}

/// One client: whom it asks, until that one fails.
struct Client<'a> {
    market: &'a Market<'a>,
    name: String,
    role: &'static str,
    random: Rng,
    api: Option<Api>,
}

impl<'a> Market<'a> {
    /// Where nothing is sold yet.
    pub fn new(system: &'a System, fleet: &'a Fleet<'a>) -> Self {
        Self {
            system,
            fleet,
            lots: Mutex::default(),
            history: Mutex::default(),
            is_over: AtomicBool::new(false),
            pace: Mutex::new((Instant::now(), Duration::ZERO)),
            given_up: AtomicI64::new(0),
            frames: AtomicU64::new(0),
            wrong: Mutex::default(),
        }
    }

    /// Everybody finishes what they are at.
    pub fn close(&self) {
        self.is_over.store(true, Relaxed);
        // The time since the last bid is one without any.
        self.acknowledged();
    }

    /// What everybody knows.
    pub fn known(self) -> Known {
        Known {
            history: self.history.into_inner().expect("nobody panics here"),
            longest_without: self.pace.into_inner().expect("nobody panics here").1,
            given_up: self.given_up.into_inner(),
            frames: self.frames.into_inner(),
            wrong: self.wrong.into_inner().expect("nobody panics here"),
        }
    }

    /// Bids on one item after another.
    pub async fn buy(&self, nth: u64, random: Rng) {
        let mut client = Client::new(self, format!("bidder-{nth}"), "bidder", random);
        while !self.is_over.load(Relaxed) {
            client.pause().await;
            if let Some(lot) = client.any_lot() {
                client.bid(&lot).await;
            }
        }
    }

    /// Keeps items open, and cancels some.
    pub async fn sell(&self, random: Rng) {
        let mut client = Client::new(self, "sam".to_owned(), "seller", random);
        while !self.is_over.load(Relaxed) {
            if self.lots().len() < OPEN {
                client.publish().await;
            } else {
                client.pause().await;
            }
        }
    }

    /// Watches one item after another.
    pub async fn watch(&self, nth: u64, random: Rng) {
        let mut client = Client::new(self, format!("watcher-{nth}"), "bidder", random);
        while !self.is_over.load(Relaxed) {
            client.pause().await;
            if let Some(lot) = client.any_lot() {
                // However it ends, another begins.
                let _ = timeout(WATCHES, client.look(&lot.item_id)).await;
            }
        }
    }

    fn lots(&self) -> std::sync::MutexGuard<'_, Vec<Lot>> {
        self.lots.lock().expect("nobody panics here")
    }

    /// What an answer tells of an item.
    fn learn(&self, item_id: &str, told: &Told) {
        let minimum = match told {
            Told::Done(reply) => Some(reply.next_minimum_minor).filter(|minimum| *minimum > 0),
            Told::Refused(_, minimum) => *minimum,
        };
        let mut lots = self.lots();
        match minimum {
            Some(minimum) => {
                for lot in lots.iter_mut().filter(|lot| lot.item_id == item_id) {
                    lot.minimum_minor = lot.minimum_minor.max(minimum);
                }
            }
            None => lots.retain(|lot| lot.item_id != item_id),
        }
    }

    fn saw_wrong(&self, what: String) {
        self.wrong.lock().expect("nobody panics here").push(what);
    }

    fn acknowledged(&self) {
        let (last, longest) = &mut *self.pace.lock().expect("nobody panics here");
        *longest = (*longest).max(last.elapsed());
        *last = Instant::now();
    }
}

impl<'a> Client<'a> {
    fn new(market: &'a Market<'a>, name: String, role: &'static str, random: Rng) -> Self {
        Self { market, name, role, random, api: None }
    }

    async fn pause(&mut self) {
        sleep(Duration::from_millis(self.random.u64(PAUSE_MS))).await;
    }

    fn any_lot(&mut self) -> Option<Lot> {
        let lots = self.market.lots();
        if lots.is_empty() { None } else { Some(lots[self.random.usize(..lots.len())].clone()) }
    }

    /// One try, of whichever service was found; where it fails, the next is of another.
    async fn asks<T>(&mut self, call: impl AsyncFnOnce(&Api) -> Result<T, Failure>) -> Result<T, Failure> {
        let api = match self.api.take() {
            Some(api) => api,
            None => self.find().await,
        };
        let answer = call(&api).await;
        if answer.is_ok() || answer.as_ref().is_err_and(|failure| failure.code == Code::FailedPrecondition) {
            self.api = Some(api);
        }
        answer
    }

    async fn find(&mut self) -> Api {
        loop {
            if let Some(api) = self.market.fleet.api(self.random.usize(..)) {
                return api.with_token(self.market.system.token(&self.name, self.role));
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn bid(&mut self, Lot { item_id, minimum_minor }: &Lot) {
        // Some too low.
        let amount = minimum_minor + self.random.i64(-1..4) * 500;
        let (amount, key) = (amount.max(1), Uuid::new_v4().to_string());
        let (began, mut left) = (Instant::now(), Vec::new());
        if self.random.u8(..LEAVES) == 0 {
            let stays = Duration::from_millis(self.random.u64(..40));
            let one = self.asks(async |api: &Api| api.bid_with_key(item_id, amount, &key).await);
            let _ = timeout(stays, one).await;
            left.push(format!("left after {stays:?}"));
        }
        let (result, unknown) = until_known(GIVES_UP, async || {
            self.asks(async |api: &Api| api.bid_with_key(item_id, amount, &key).await).await
        })
        .await;
        if let Err(failure) = &result
            && failure.code != Code::FailedPrecondition
        {
            self.market.saw_wrong(format!("{} bid {amount} for {item_id} and was told {failure:?}", self.name));
        }
        let told = Told::of(result);
        self.market.learn(item_id, &told);
        if matches!(told, Told::Done(_)) {
            self.market.acknowledged();
        }
        let (bidder, item_id, took) = (self.name.clone(), item_id.clone(), began.elapsed());
        let unknown = left.into_iter().chain(unknown).collect();
        let bid = Bid { bidder, item_id, amount, key, unknown, told, took, answered_at: Utc::now() };
        self.market.history.lock().expect("nobody panics here").bids.push(bid);
    }

    async fn publish(&mut self) {
        let request = |ends_at| gavel_proto::v1::CreateItemRequest {
            idempotency_key: Uuid::new_v4().to_string(),
            title: "A lamp".to_owned(),
            currency: "EUR".to_owned(),
            start_price_minor: 1_000,
            ends_at: Some(gavel_runtime::wire::timestamp(ends_at)),
            ..Default::default()
        };
        let ends_at = Utc::now() + TimeDelta::milliseconds(self.random.i64(LIVES_MS));
        let request = request(ends_at);
        let (published, _) =
            until_known(GIVES_UP, async || self.asks(async |api: &Api| api.create_item(request.clone()).await).await)
                .await;
        let item_id = match published {
            Ok(item) => item.item_id,
            // Nobody answered before its end.
            Err(failure) if failure.code == Code::InvalidArgument && Utc::now() > ends_at => {
                self.market.given_up.fetch_add(1, Relaxed);
                return;
            }
            Err(failure) => panic!("an item is not published: {failure:?}"),
        };
        self.market.history.lock().expect("nobody panics here").items.push(item_id.clone());
        self.market.lots().push(Lot { item_id: item_id.clone(), minimum_minor: 1_000 });
        if self.random.u8(..CANCELLED) == 0 {
            // Somebody may have been quicker, or the try before was done.
            let _ =
                until_known(GIVES_UP, async || self.asks(async |api: &Api| api.cancel(&item_id, "broken").await).await)
                    .await;
        }
    }

    /// Looks at a stream until it ends.
    async fn look(&mut self, item_id: &str) {
        let api = self.find().await;
        let note = |_| {
            self.market.frames.fetch_add(1, Relaxed);
        };
        if let Err(wrong) = follow(&api, item_id, 0, note).await {
            self.market.saw_wrong(wrong);
        }
    }
}
