//! A message nobody can handle is parked with its error; the others flow, and it can be sent back or discarded.
use chrono::{TimeDelta, Utc};
use gavel_proto::v1;
use gavel_tests::{Process, System, broker::Broker, eventually, settle};
use uuid::Uuid;

/// Handler, message id, error and payload of each parked message.
async fn parked(system: &System) -> Vec<(String, String, String, Vec<u8>)> {
    sqlx::query_as("SELECT handler, message_id, error, payload FROM parked_messages ORDER BY handler")
        .fetch_all(&system.db)
        .await
        .expect("read")
}

#[tokio::test]
async fn a_poisonous_message_is_parked_with_its_error_and_holds_nobody_up() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    let _worker = system.worker().await;
    let alice = api.with_token(system.token("alice", "bidder"));
    alice.bid(&item.item_id, 1_000).await.expect("accepted");
    let counted = |bids: i64| {
        move |reply: &Result<v1::GetUserStatsResponse, gavel_tests::Failure>| {
            reply.as_ref().is_ok_and(|reply| reply.stats.first().is_some_and(|stats| stats.bids_placed == bids))
        }
    };
    eventually("the worker consumes", || alice.stats(""), counted(1)).await.expect("alice may see it");

    let broker = Broker::connect(&system.amqp_url).await;
    let id = Uuid::new_v4().to_string();
    broker.publish("item.closed", &id, b"\xff\xff this is no protobuf").await;
    alice.bid(&item.item_id, 2_000).await.expect("accepted");
    eventually("the bid behind it is counted", || alice.stats(""), counted(2)).await.expect("alice may see it");

    let parked = || parked(&system);
    let rows = eventually("each consumer parks its own copy", parked, |rows| rows.len() == 2).await;
    for (row, consumer) in rows.iter().zip(["apply_user_stats", "project_item"]) {
        assert_eq!((row.0.as_str(), row.1.as_str()), (consumer, id.as_str()));
        assert!(row.2.contains("can't be decoded"), "{}", row.2);
        assert_eq!(row.3, b"\xff\xff this is no protobuf");
    }
    assert_eq!(broker.depth("gavel.parked").await.0, 0, "nothing is left on the broker");
}

#[tokio::test]
async fn a_parked_message_is_sent_back_to_its_consumer_alone_and_counts_once() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    // The statistics can't be written: each try is a fault of ours, and in the end the message is parked.
    let lose = "ALTER TABLE user_stats RENAME TO user_stats_elsewhere";
    sqlx::query(lose).execute(&system.db).await.expect("lost");
    let _worker: Process = system.worker().await;
    let alice = api.with_token(system.token("alice", "bidder"));
    alice.bid(&item.item_id, 1_000).await.expect("accepted");
    let rows = eventually("it is parked", || parked(&system), |rows| !rows.is_empty()).await;
    assert!(rows.iter().all(|row| row.0 == "apply_user_stats"), "{rows:?}");

    let find = "ALTER TABLE user_stats_elsewhere RENAME TO user_stats";
    sqlx::query(find).execute(&system.db).await.expect("found");
    let ops = api.with_token(system.token("olga", "ops"));
    let request = v1::RetryParkedMessagesRequest {
        idempotency_key: Uuid::new_v4().to_string(),
        handler: "apply_user_stats".to_owned(),
        ..Default::default()
    };
    let (request, seen) = ops.request(request);
    let count = settle(ops.ops.retry_parked_messages(request).await, &seen).expect("olga may").count;
    assert_eq!(usize::try_from(count).ok(), Some(rows.len()));
    eventually("nothing is parked any more", || parked(&system), Vec::is_empty).await;
    let counted = || async { alice.stats("").await.expect("alice may see it").stats.first().map(|s| s.bids_placed) };
    eventually("the bid is counted", counted, |bids| *bids == Some(1)).await;
}

/// Twenty bids of twenty bidders, one of them mallory, wait for `apply_user_stats`.
async fn twenty_wait(system: &System, broker: &Broker) {
    let (_service, api) = system.service().await;
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    let mut makers = system.worker_with(&["--only", "relay_outbox"], &[]).await;
    for n in 0..20 {
        let bidder = if n == 13 { "mallory".to_owned() } else { format!("bidder-{n}") };
        let bidder = api.with_token(system.token(&bidder, "bidder"));
        bidder.bid(&item.item_id, 1_000 + n * 100).await.expect("accepted");
    }
    let waiting = || async { broker.depth("gavel.apply_user_stats").await.0 };
    eventually("all wait for the consumer", waiting, |count| *count == 20).await;
    makers.kill();
}

/// Returns who has how many bids in the statistics.
async fn counted(system: &System) -> Vec<(String, i64)> {
    sqlx::query_as("SELECT user_id, bids_placed FROM user_stats").fetch_all(&system.db).await.expect("read")
}

#[tokio::test]
async fn a_message_that_kills_its_consumers_does_not_keep_the_others_from_being_applied() {
    let system = System::new().await;
    let broker = Broker::connect(&system.amqp_url).await;
    twenty_wait(&system, &broker).await;
    let fault = [("GAVEL_FAILPOINTS", "apply_user_stats.apply.mallory=abort@*")];
    let mut deaths = 0;
    while counted(&system).await.len() < 19 {
        let mut worker = system.worker_with(&["--only", "apply_user_stats"], &fault).await;
        worker.ended().await;
        deaths += 1;
        assert!(deaths < 40, "{:?} after {deaths} deaths", counted(&system).await);
    }
    let _worker = system.worker_with(&["--only", "apply_user_stats"], &[]).await;
    let all = eventually("all count", || counted(&system), |counted| counted.len() == 20).await;
    assert!(all.iter().all(|(_, bids)| *bids == 1), "{all:?}");
    assert!(parked(&system).await.is_empty(), "nobody was given up");
}

/// A row of the statistics that nobody else may change for the time being.
async fn hold(system: &System, user: &str) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let mut holder = system.db.begin().await.expect("a transaction");
    let found = sqlx::query("SELECT FROM user_stats WHERE user_id = $1 FOR UPDATE").bind(user).execute(&mut *holder);
    assert_eq!(found.await.expect("locked").rows_affected(), 1);
    holder
}

#[tokio::test]
async fn a_message_that_can_not_be_applied_yet_holds_up_no_other_and_is_not_lost_when_the_worker_drains() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    let bid = async |bidder: &str, amount: i64| {
        let bidder = api.with_token(system.token(bidder, "bidder"));
        bidder.bid(&item.item_id, amount).await.expect("accepted");
    };
    let _relay = system.worker_with(&["--only", "relay_outbox"], &[]).await;
    let mut worker = system.worker_with(&["--only", "apply_user_stats"], &[]).await;
    bid("alice", 1_000).await;
    bid("bob", 1_100).await;
    let sorted = || async {
        let mut counted = counted(&system).await;
        counted.sort();
        counted
    };
    let figures = |alice: i64, bob: i64| vec![("alice".to_owned(), alice), ("bob".to_owned(), bob)];
    eventually("both count", sorted, |counted| *counted == figures(1, 1)).await;

    let alices = hold(&system, "alice").await;
    bid("alice", 1_200).await;
    let tried = || async { worker.log().iter().filter(|line| line["outcome"] == "deadline_exceeded").count() };
    eventually("alice's is quarantined", tried, |count| *count > 0).await;
    bid("bob", 1_300).await;
    eventually("bob's goes on", sorted, |counted| *counted == figures(1, 2)).await;

    // Another worker is given alice's message first, and bob's next one as well.
    worker.kill();
    let mut worker = system.worker_with(&["--only", "apply_user_stats"], &[]).await;
    bid("bob", 1_400).await;
    eventually("bob's goes on again", sorted, |counted| *counted == figures(1, 3)).await;

    // A batch is under way when the drain begins; what it acknowledges is its own.
    let bobs = hold(&system, "bob").await;
    bid("bob", 1_500).await;
    let locks = || system.waiting_for_locks("bid-worker");
    eventually("bob's is under way", locks, |count| *count > 0).await;
    worker.terminate();
    bobs.rollback().await.expect("released");
    assert!(worker.ended().await.success());
    alices.rollback().await.expect("released");
    let _worker = system.worker_with(&["--only", "apply_user_stats"], &[]).await;
    eventually("all count once", sorted, |counted| *counted == figures(2, 4)).await;
}

#[tokio::test]
async fn a_message_that_makes_a_whole_batch_fail_is_found_and_parked_and_the_others_count() {
    let system = System::new().await;
    let broker = Broker::connect(&system.amqp_url).await;
    twenty_wait(&system, &broker).await;
    let fault = [("GAVEL_FAILPOINTS", "apply_user_stats.apply.mallory=panic@*")];
    let _worker = system.worker_with(&["--only", "apply_user_stats"], &fault).await;
    let parked = || parked(&system);
    let rows = eventually("the one to blame is parked", parked, |rows| rows.len() == 1).await;
    assert!(rows[0].2.contains("panicked"), "{}", rows[0].2);
    let counted = eventually("the others count", || counted(&system), |counted| counted.len() == 19).await;
    assert!(counted.iter().all(|(user, bids)| user != "mallory" && *bids == 1), "{counted:?}");
}
