//! A bid travels the whole way: accepted, relayed, projected, counted; the auction ends, the winner's spend is right.
use chrono::{TimeDelta, Utc};
use gavel_proto::v1::{ItemStatus, ReadSource};
use gavel_tests::{Api, System, eventually};

#[tokio::test]
async fn a_bid_travels_from_the_call_to_the_read_model_and_the_statistics() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let _worker = system.worker().await;
    let seller = api.with_token(system.token("sam", "seller"));
    let alice = api.with_token(system.token("alice", "bidder"));
    let bob = api.with_token(system.token("bob", "bidder"));
    let ends_at = Utc::now() + TimeDelta::seconds(6);
    let item = seller.create("A lamp", ends_at).await;
    assert_eq!((item.version, item.next_minimum_minor, item.price_minor), (1, 1_000, None));

    let first = alice.bid(&item.item_id, 1_000).await.expect("the start price is enough");
    assert_eq!((first.sequence, first.price_minor, first.next_minimum_minor), (2, 1_000, 1_050));
    let second = bob.bid(&item.item_id, 2_500).await.expect("above the minimum");
    assert_eq!((second.sequence, second.price_minor, second.next_minimum_minor), (3, 2_500, 2_600));

    let shown = eventually(
        "the read model has the second bid",
        || api.item(&item.item_id),
        |reply| reply.as_ref().is_ok_and(|reply| reply.item.as_ref().is_some_and(|item| item.version == 3)),
    )
    .await
    .expect("the item is there");
    let shown_item = shown.item.clone().expect("an item");
    assert_eq!((shown_item.leader.as_str(), shown_item.price_minor, shown_item.bid_count), ("bob", Some(2_500), 2));

    the_winner_is_announced_and_charged(&api, &bob, &item.item_id).await;
    nobody_can_bid_any_more(&alice, &item.item_id).await;
}

async fn the_winner_is_announced_and_charged(api: &Api, bob: &Api, item_id: &str) {
    let closed = eventually(
        "the auction is closed in the read model",
        || api.item(item_id),
        |reply| reply.as_ref().is_ok_and(|reply| reply.item.as_ref().is_some_and(|i| i.status() == ItemStatus::Closed)),
    )
    .await
    .expect("the item is there");
    assert_eq!(closed.source(), ReadSource::ReadModel);
    assert_eq!(closed.item.expect("an item").next_minimum_minor, 0);

    let stats = eventually(
        "bob's win is counted",
        || bob.stats(""),
        |reply| reply.as_ref().is_ok_and(|reply| reply.stats.iter().any(|stats| stats.items_won > 0)),
    )
    .await
    .expect("bob may see it");
    let euros = &stats.stats[0];
    assert_eq!(
        (euros.currency.as_str(), euros.bids_placed, euros.items_won, euros.total_spent_minor),
        ("EUR", 1, 1, 2_500)
    );
}

async fn nobody_can_bid_any_more(alice: &Api, item_id: &str) {
    let late = alice.bid(item_id, 9_000).await.expect_err("the auction is over");
    assert!(late.message.starts_with("bidding ended at"), "{}", late.message);
}
