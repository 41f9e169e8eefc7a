//! A panic is one caller's error; a deadline frees what it held.
use chrono::{TimeDelta, Utc};
use gavel_tests::{System, eventually};
use poem_grpc::Code;

#[tokio::test]
async fn a_panicking_bid_is_an_internal_error_with_a_correlation_id_and_leaves_nothing_behind() {
    let system = System::new().await;
    let (service, api) = system.service_with(&[("GAVEL_FAILPOINTS", "place_bid.before_commit=panic@1")]).await;
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    let alice = api.with_token(system.token("alice", "bidder"));
    let key = uuid::Uuid::new_v4().to_string();
    let failure = alice.bid_with_key(&item.item_id, 1_000, &key).await.expect_err("the handler panics");
    let correlation_id = failure.correlation_id.clone().expect("something to look for in the log");
    assert_eq!(failure.code, Code::Internal);
    assert!(failure.message.contains(&correlation_id) && !failure.message.contains("fault"), "{}", failure.message);
    let told =
        || async { service.log().iter().any(|line| line["correlation_id"] == correlation_id && line["level"] == 50) };
    eventually("the log has the cause", told, |told| *told).await;
    let reply = alice.bid_with_key(&item.item_id, 1_000, &key).await.expect("the same key, once more");
    assert_eq!(reply.sequence, 2, "the panicking try left nothing");
}

#[tokio::test]
async fn a_bid_whose_deadline_passes_waiting_for_the_lock_is_given_up_and_its_connection_freed() {
    let system = System::new().await;
    let (_service, api) = system.service_with(&[("GAVEL_POOL_SIZE", "2")]).await;
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    let alice = api.with_token(system.token("alice", "bidder"));
    let mut holder = system.db.begin().await.expect("a transaction");
    sqlx::query("SELECT item_id FROM items FOR UPDATE").execute(&mut *holder).await.expect("the lock");
    let short_lock_timeout = alice.with_header("grpc-timeout", "300m");
    for _ in 0..4 {
        let failure = short_lock_timeout.bid(&item.item_id, 1_000).await.expect_err("the lock is held");
        assert_eq!(failure.code, Code::DeadlineExceeded, "{failure:?}");
    }
    holder.rollback().await.expect("released");
    let reply = alice.bid(&item.item_id, 1_000).await.expect("the pool of two is free again");
    assert_eq!(reply.sequence, 2, "none of the late ones was placed");
    let stuck = || async {
        sqlx::query_scalar::<_, i64>(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
             AND application_name LIKE 'bid-service%' AND state LIKE 'idle in transaction%'",
        )
        .fetch_one(&system.db)
        .await
        .expect("counted")
    };
    eventually("no transaction is left open", stuck, |count| *count == 0).await;
}
