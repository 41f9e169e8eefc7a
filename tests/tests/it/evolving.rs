//! The schema changes while bids keep coming: a column's type, and an aggregate that is filled while it moves.
use chrono::{TimeDelta, Utc};
use gavel_accounts::postgres::Role;
use gavel_proto::v1;
use gavel_tests::{
    Api, Process, System, eventually,
    evolving::{MIGRATING, Operator},
};
use serde_json::Value;
use sqlx::{Connection, Executor, PgConnection};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
};
use tokio::task::JoinHandle;

/// Somebody who bids on, whatever happens to the schema: gives how many were accepted, and panics at any error.
fn bid_on(api: &Api, system: &System, item: &str) -> (JoinHandle<i64>, Arc<AtomicBool>) {
    let stop = Arc::new(AtomicBool::new(false));
    let (alice, item, until) = (api.with_token(system.token("alice", "bidder")), item.to_owned(), stop.clone());
    let bidding = tokio::spawn(async move {
        let (mut accepted, mut amount) = (0, 1_000);
        while !until.load(Relaxed) {
            let reply = alice.bid(&item, amount).await.expect("every bid is accepted, whatever becomes of the schema");
            amount = reply.next_minimum_minor;
            accepted += 1;
            let bids = v1::ListBidsRequest { item_id: item.clone(), page_size: 1, ..Default::default() };
            let newest = alice.bids(bids).await.expect("bids are listed, whatever becomes of the schema").bids;
            assert_eq!(newest[0].amount_minor, reply.price_minor);
        }
        accepted
    });
    (bidding, stop)
}

/// A service that is bid at, and has said how long bids take.
async fn bids_of_known_latency(system: &System) -> (Process, JoinHandle<i64>, Arc<AtomicBool>) {
    let (service, api) = system.service().await;
    let item = new_item(system, &api).await;
    let (bidding, stop) = bid_on(&api, system, &item);
    let seen = || async { system.count("SELECT count(*) FROM processes WHERE p99_ms IS NOT NULL").await };
    eventually("their latency is known", seen, |count| *count == 1).await;
    (service, bidding, stop)
}

async fn new_item(system: &System, api: &Api) -> String {
    api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await.item_id
}

/// Asks until it is done, as an operator would who is told what to wait for.
async fn eventually_contracts(system: &System, change: &str) {
    let contract = || async { system.bidctl(&["schema", "contract", change, "--reason", "nobody needs it"]).await };
    eventually("it contracts", contract, Result::is_ok).await.expect("contracted");
}

#[tokio::test]
async fn a_columns_type_changes_while_bids_keep_coming_and_back_and_for_good() {
    let system = System::with_old_bids(20_000).await;
    let (service, api) = system.service().await;
    let _worker = system.worker_with(MIGRATING, &[]).await;
    let operator = Operator::at(&system, &service).await;
    let item = new_item(&system, &api).await;
    let (bidding, stop) = bid_on(&api, &system, &item);

    let refused = system.bidctl(&["schema", "contract", "27", "--reason", "too early"]).await.expect_err("too early");
    for told in ["its backfill was never started", "20000 rows of bids, such as bid_id", "is not validated"] {
        assert!(refused.contains(told), "{told}: {refused}");
    }
    operator.fill("27").await;
    assert_eq!(system.count("SELECT count(*) FROM bids WHERE max_amount_minor IS DISTINCT FROM amount_minor").await, 0);
    let dry = || async { system.bidctl(&["schema", "contract", "27", "--dry-run"]).await.expect_err("just written") };
    eventually("its meter is looked at", dry, |refused| refused.contains("asked for 10 min")).await;

    system.a_day_goes_by().await;
    eventually_contracts(&system, "27").await;
    let columns = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'bids' AND column_name = ";
    assert_eq!(system.count(&format!("{columns}'amount_minor'")).await, 0);
    let alice = api.with_token(system.token("bob", "bidder"));
    let other = new_item(&system, &api).await;
    let above = alice.bid(&other, 3_000_000_000).await.expect_err("above what could be brought back").refused;
    assert_eq!(above.expect("why").maximum_minor, 2_000_000_000);

    system.bidctl(&["schema", "revert", "27", "--reason", "a rehearsal"]).await.expect("reverted");
    assert_eq!(system.count("SELECT count(*) FROM bids WHERE max_amount_minor IS DISTINCT FROM amount_minor").await, 0);
    eventually_contracts(&system, "27").await;
    let early = system.bidctl(&["schema", "drop", "27", "--reason", "now"]).await.expect_err("it must bake");
    assert!(early.contains("asked for 1440 min"), "{early}");
    system.a_day_goes_by().await;
    let drop = || async { system.bidctl(&["schema", "drop", "27", "--reason", "a day has gone by"]).await };
    eventually("it drops", drop, Result::is_ok).await.expect("dropped");
    let wide = || async { alice.bid(&other, 3_000_000_000).await };
    eventually("amounts that no integer holds are taken", wide, Result::is_ok).await.expect("accepted");

    stop.store(true, Relaxed);
    let accepted = bidding.await.expect("no bid failed");
    assert!(accepted > 50, "{accepted} bids were accepted meanwhile");
    let of_item = "SELECT count(*) FROM bids WHERE bidder_id = 'alice' AND max_amount_minor IS NOT NULL";
    assert_eq!(system.count(of_item).await, accepted);
    let steps = "SELECT count(*) FROM operator_actions WHERE target = '0027_widen_bid_amounts' AND reason <> ''";
    assert_eq!(system.count(steps).await, 5, "start, contract, revert, contract, drop");
}

#[tokio::test]
async fn an_aggregate_is_filled_while_it_moves_and_is_exact_for_everybody_in_the_end() {
    let system = System::with_old_bids(5_000).await;
    // A consumer of the last release goes on to write rows that nobody counts.
    let old = tokio::spawn({
        let db = system.db.clone();
        async move {
            for n in 0..300 {
                let write = "INSERT INTO user_items (user_id, item_id)
                             SELECT 'user-' || ($1 % 97), item_id FROM items ORDER BY item_id OFFSET $1 % 50 LIMIT 1
                             ON CONFLICT DO NOTHING";
                sqlx::query(write).bind(n).execute(&db).await.expect("written");
            }
        }
    });
    let (service, api) = system.service().await;
    let _worker = system.worker_with(MIGRATING, &[]).await;
    let (item, most) = (new_item(&system, &api).await, Arc::new(AtomicI64::new(0)));
    let (bidding, stop) = bid_on(&api, &system, &item);
    let too_high = "SELECT count(*) FROM user_stats s WHERE items_bid_on > (
                      SELECT count(*) FROM user_items u JOIN items i USING (item_id)
                      WHERE u.user_id = s.user_id AND i.currency = s.currency)";
    let watching = tokio::spawn({
        let (db, most, stop) = (system.db.clone(), most.clone(), stop.clone());
        async move {
            while !stop.load(Relaxed) {
                let found: i64 = sqlx::query_scalar(too_high).fetch_one(&db).await.expect("counted");
                most.fetch_max(found, Relaxed);
            }
        }
    });
    let hidden = api.with_token(system.token("olga", "ops")).stats("user-1").await.expect("shown");
    assert!(hidden.stats.iter().all(|stats| stats.items_bid_on.is_none()), "not before it is whole: {hidden:?}");
    let operator = Operator::at(&system, &service).await;
    operator.fill("28").await;
    old.await.expect("written");
    stop.store(true, Relaxed);
    bidding.await.expect("no bid failed");
    watching.await.expect("watched");
    assert_eq!(most.load(Relaxed), 0, "no number was ever too high");
    assert_eq!(system.count("SELECT count(*) FROM user_items WHERE user_id = 'alice' AND is_counted").await, 1);
    let left = || async { system.count("SELECT count(*) FROM user_items WHERE NOT is_counted").await };
    if left().await > 0 {
        // Whatever was written in the old form after all: it is begun anew.
        operator.fill("28").await;
    }
    assert_eq!(left().await, 0);
    let whole = || async { api.with_token(system.token("olga", "ops")).stats("user-1").await.expect("shown") };
    let shown = eventually("it is shown", whole, |found| found.stats.iter().all(|s| s.items_bid_on.is_some())).await;
    assert_eq!(shown.stats.len(), 2);
}

#[tokio::test]
async fn what_old_consumers_write_is_waited_for_and_counted() {
    let system = System::with_old_bids(500).await;
    let mut old = PgConnection::connect(system.database_url(Role::Worker)).await.expect("connected");
    old.execute("SET application_name = 'bid-worker'").await.expect("named");
    let (service, _api) = system.service().await;
    let _worker = system.worker_with(MIGRATING, &[]).await;
    let operator = Operator::at(&system, &service).await;
    operator.backfill(&["start", "28", "--reason", "a test"]).await.expect("started");
    let state = || async { operator.state("28").await };
    eventually("it waits", state, |found| found["stage"] == "BACKFILL_STAGE_WAITING").await;
    old.execute("INSERT INTO user_items (user_id, item_id) SELECT 'late', item_id FROM items").await.expect("written");
    assert_eq!(state().await["state"], "BACKFILL_STATE_RUNNING", "not done while an old program lives");
    old.close().await.expect("closed");
    operator.done("28").await;
    let items = system.count("SELECT count(*) FROM items").await;
    let counted = "SELECT sum(items_bid_on)::bigint FROM user_stats WHERE user_id = 'late'";
    assert_eq!(system.count(counted).await, items);
}

#[tokio::test]
async fn a_backfill_waits_while_bids_are_slow() {
    let system = System::with_old_bids(3_000).await;
    let (service, bidding, stop) = bids_of_known_latency(&system).await;
    let operator = Operator::at(&system, &service).await;
    // No bid is as quick as this.
    let tuned = ["start", "27", "--reason", "a test", "--p99-limit-ms", "1", "--most-rows", "100"];
    operator.backfill(&tuned).await.expect("started");
    let worker = system.worker_with(MIGRATING, &[]).await;
    let state = || async { operator.state("27").await };
    let waits = |why: &str| why.contains("p99 of protected calls");
    eventually("it waits", state, |found| {
        found["throttled_by"].as_str().is_some_and(waits)
            || found["why"].as_str().is_some_and(|why| why.contains("distress"))
    })
    .await;
    let shown = |metrics: &String| metrics.contains("gavel_backfill_rows_estimated{change=\"0027_widen_bid_amounts\"");
    eventually("it is in the metrics", || worker.metrics(), shown).await;
    stop.store(true, Relaxed);
    bidding.await.expect("no bid failed");
    if state().await["state"] == "BACKFILL_STATE_PAUSED" {
        operator.backfill(&["resume", "27", "--reason", "all is well"]).await.expect("resumed");
    }
    operator.free("27").await;
    operator.done("27").await;
}

#[tokio::test]
async fn a_backfill_finds_out_how_quick_bids_are_without_it_and_sets_its_pace_by_that() {
    let system = System::with_old_bids(3_000).await;
    let (service, bidding, stop) = bids_of_known_latency(&system).await;
    let operator = Operator::at(&system, &service).await;
    let tuned = ["start", "27", "--reason", "a test", "--p99-limit-ms", "60000", "--most-rows", "100"];
    operator.backfill(&tuned).await.expect("started");
    let _worker = system.worker_with(MIGRATING, &[]).await;
    let state = || async { operator.state("27").await };
    let is_still = |found: &Value| found["throttled_by"].as_str().is_some_and(|why| why.contains("stands still"));
    let still = eventually("it stands still", state, is_still).await;
    assert_eq!((&still["rows_passed"], &still["p99_before_ms"]), (&0.into(), &Value::Null));
    let begun = eventually("it has begun", state, |found| found["rows_passed"].as_i64() > Some(0)).await;
    assert!(begun["p99_before_ms"].as_f64() > Some(0.0), "{begun}");
    assert!(begun["pace"].as_f64() < Some(0.5), "it begins slowly: {begun}");
    stop.store(true, Relaxed);
    bidding.await.expect("no bid failed");
    operator.free("27").await;
    operator.done("27").await;
}
