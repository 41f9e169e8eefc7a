//! Bids that can be asked for by their keys, and what makes those who decide them wait.
use chrono::{TimeDelta, Utc};
use futures_util::{StreamExt, future::join_all, stream};
use gavel_proto::v1::PlaceBidResponse;
use gavel_tests::{Api, Failure, Process, System, eventually};
use poem_grpc::Code;
use std::collections::BTreeMap;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// A service with so few connections decides one batch at a time.
pub(crate) const ONE_LANE: (&str, &str) = ("GAVEL_POOL_SIZE", "2");

pub(crate) type Answer = Result<PlaceBidResponse, Failure>;

/// A bid with the key it can be asked for by.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) bidder: String,
    pub(crate) item_id: String,
    pub(crate) amount: i64,
    pub(crate) key: String,
}

impl Asked {
    pub(crate) fn new(bidder: &str, item_id: &str, amount: i64) -> Self {
        let key = Uuid::new_v4().to_string();
        Self { bidder: bidder.to_owned(), item_id: item_id.to_owned(), amount, key }
    }

    pub(crate) async fn ask(&self, system: &System, api: &Api) -> Answer {
        let api = api.with_token(system.token(&self.bidder, "bidder"));
        api.bid_with_key(&self.item_id, self.amount, &self.key).await
    }

    pub(crate) fn send(&self, system: &System, api: &Api) -> JoinHandle<Answer> {
        let (asked, api) = (self.clone(), api.with_token(system.token(&self.bidder, "bidder")));
        tokio::spawn(async move { api.bid_with_key(&asked.item_id, asked.amount, &asked.key).await })
    }
}

pub(crate) async fn items(system: &System, api: &Api, count: usize) -> Vec<String> {
    let seller = api.with_token(system.token("sam", "seller"));
    let ends_at = Utc::now() + TimeDelta::hours(1);
    join_all((0..count).map(|n| {
        let seller = seller.clone();
        async move { seller.create(&format!("Lot {n}"), ends_at).await.item_id }
    }))
    .await
}

/// Locks these items from outside, so that whoever decides bids on them waits.
pub(crate) async fn lock(system: &System, item_ids: &[String]) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let mut holder = system.db.begin().await.expect("a transaction");
    sqlx::query("SELECT item_id FROM items WHERE item_id = ANY($1::uuid[]) FOR UPDATE")
        .bind(item_ids)
        .execute(&mut *holder)
        .await
        .expect("locked");
    holder
}

/// From now on nobody finishes writing a bid of theirs before what is given back has ended. That is no lock: the
/// service would wait for it so long and no longer.
pub(crate) async fn hold_up(system: &System, bidder: &str) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let sql = format!(
        "CREATE FUNCTION hold_up() RETURNS trigger LANGUAGE plpgsql AS $$
           BEGIN
             WHILE NOT pg_try_advisory_xact_lock(1) LOOP PERFORM pg_sleep(0.01); END LOOP;
             RETURN NEW;
           END $$;
         CREATE TRIGGER hold_up BEFORE INSERT ON bids FOR EACH ROW WHEN (NEW.bidder_id = '{bidder}')
           EXECUTE FUNCTION hold_up()"
    );
    sqlx::raw_sql(&sql).execute(&system.db).await.expect("held up");
    let mut holder = system.db.begin().await.expect("a transaction");
    sqlx::query("SELECT pg_advisory_xact_lock(1)").execute(&mut *holder).await.expect("locked");
    holder
}

/// Waits until so many of the service's transactions wait for a lock.
pub(crate) async fn wait_for_waiting(system: &System, count: usize) {
    let waiting = || system.waiting_for_locks("bid-service");
    eventually("transactions wait for a lock", waiting, |found| *found == count as i64).await;
}

/// How many calls the handler has taken in and not answered.
pub(crate) async fn wait_for_calls(service: &Process, count: usize) {
    eventually("the calls are inside", || service.in_flight("place_bid", "rpc"), |found| *found >= count).await;
}

/// Bidder and amount of every bid in the ledger, by item and sequence.
pub(crate) async fn ledger(system: &System) -> BTreeMap<(String, i64), (String, i64)> {
    let rows: Vec<(Uuid, i64, String, i64)> =
        sqlx::query_as("SELECT item_id, sequence, bidder_id, max_amount_minor FROM bids")
            .fetch_all(&system.db)
            .await
            .expect("the ledger");
    rows.into_iter().map(|(item, at, who, amount)| ((item.to_string(), at), (who, amount))).collect()
}

/// Asks for every bid by its key and compares what is said with the ledger: each accepted bid is there once, as it was
/// acknowledged, and nothing else is.
pub(crate) async fn agree(system: &System, api: &Api, asked: &[Asked]) -> usize {
    let mut expected = BTreeMap::new();
    let mut answers = stream::iter(asked).map(|bid| async move { (bid, bid.ask(system, api).await) }).buffered(16);
    while let Some((bid, answer)) = answers.next().await {
        match answer {
            Ok(reply) => {
                let place = (bid.item_id.clone(), reply.sequence);
                assert!(expected.insert(place, (bid.bidder.clone(), bid.amount)).is_none(), "a sequence given twice");
            }
            Err(failure) => assert_eq!(failure.code, Code::FailedPrecondition, "{failure:?}"),
        }
    }
    assert!(ledger(system).await == expected, "the ledger is what the bidders are told");
    expected.len()
}
