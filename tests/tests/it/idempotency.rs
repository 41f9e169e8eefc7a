//! The same key, the same effect, the same reply.
use chrono::{TimeDelta, Utc};
use futures_util::future::join_all;
use gavel_proto::v1::BidRefusalReason;
use gavel_tests::System;
use poem_grpc::Code;
use prost::Message;
use uuid::Uuid;

#[tokio::test]
async fn the_same_key_gives_one_bid_and_the_same_bytes_one_after_another_and_at_once() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    let alice = api.with_token(system.token("alice", "bidder"));
    let key = Uuid::new_v4().to_string();
    let first = alice.bid_with_key(&item.item_id, 1_000, &key).await.expect("accepted");
    let again = alice.bid_with_key(&item.item_id, 1_000, &key).await.expect("the same answer");
    assert_eq!(first.encode_to_vec(), again.encode_to_vec());

    let key = Uuid::new_v4().to_string();
    let at_once = join_all((0..20).map(|_| alice.bid_with_key(&item.item_id, 2_000, &key))).await;
    let replies: Vec<_> = at_once.into_iter().map(|reply| reply.expect("one answer for all").encode_to_vec()).collect();
    assert!(replies.windows(2).all(|pair| pair[0] == pair[1]), "the replies differ");

    let bids: i64 = sqlx::query_scalar("SELECT count(*) FROM bids").fetch_one(&system.db).await.expect("counted");
    assert_eq!(bids, 2);
    let stored: Vec<u8> = sqlx::query_scalar("SELECT reply FROM idempotency_keys WHERE idempotency_key = $1::uuid")
        .bind(&key)
        .fetch_one(&system.db)
        .await
        .expect("the receipt");
    assert_eq!(stored, replies[0], "what was answered is what is stored");
}

#[tokio::test]
async fn a_key_used_with_another_request_is_a_clear_conflict_and_a_key_is_ones_own() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    let alice = api.with_token(system.token("alice", "bidder"));
    let key = Uuid::new_v4().to_string();
    alice.bid_with_key(&item.item_id, 1_000, &key).await.expect("accepted");
    let conflict = alice.bid_with_key(&item.item_id, 1_100, &key).await.expect_err("another amount");
    assert_eq!(conflict.code, Code::AlreadyExists);
    assert!(conflict.message.contains(&key) && conflict.message.contains("another request"), "{}", conflict.message);
    let bob = api.with_token(system.token("bob", "bidder"));
    bob.bid_with_key(&item.item_id, 1_100, &key).await.expect("bob's key is not alice's");
    let malformed = alice.bid_with_key(&item.item_id, 1_500, "not-a-uuid").await.expect_err("no UUID");
    assert_eq!(malformed.code, Code::InvalidArgument);
}

#[tokio::test]
async fn a_refusal_is_an_answer_too_and_stays_the_same() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    let alice = api.with_token(system.token("alice", "bidder"));
    let key = Uuid::new_v4().to_string();
    let refused = alice.bid_with_key(&item.item_id, 999, &key).await.expect_err("below the start price");
    assert_eq!(refused.code, Code::FailedPrecondition);
    let detail = refused.refused.expect("a typed detail");
    assert_eq!((detail.reason(), detail.next_minimum_minor), (BidRefusalReason::BelowMinimum, 1_000));
    alice.bid(&item.item_id, 5_000).await.expect("accepted");
    let again = alice.bid_with_key(&item.item_id, 999, &key).await.expect_err("the same answer");
    assert_eq!(again.refused, refused.refused, "though the minimum has moved since");
}

#[tokio::test]
async fn an_item_is_published_once_per_key() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let seller = api.with_token(system.token("sam", "seller"));
    let request = gavel_proto::v1::CreateItemRequest {
        idempotency_key: Uuid::new_v4().to_string(),
        title: "A lamp".to_owned(),
        currency: "EUR".to_owned(),
        start_price_minor: 1_000,
        starts_at: None,
        ends_at: Some(prost_types::Timestamp { seconds: Utc::now().timestamp() + 3_600, nanos: 0 }),
        ..gavel_proto::v1::CreateItemRequest::default()
    };
    let replies = join_all((0..5).map(|_| seller.create_item(request.clone()))).await;
    let ids: Vec<_> = replies.into_iter().map(|reply| reply.expect("published").item_id).collect();
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
    let (items, jobs): (i64, i64) =
        sqlx::query_as("SELECT (SELECT count(*) FROM items), (SELECT count(*) FROM mq_msgs WHERE id <> uuid_nil())")
            .fetch_one(&system.db)
            .await
            .expect("counted");
    assert_eq!((items, jobs), (1, 1));
}
