//! Two hundred bidders at once on one item.
use chrono::{TimeDelta, Utc};
use futures_util::future::join_all;
use gavel_tests::System;
use std::collections::BTreeMap;

const BIDDERS: i64 = 200;

#[tokio::test]
async fn two_hundred_concurrent_bidders_leave_a_gapless_rising_ledger_and_one_leader() {
    contend(&System::new().await).await;
}

#[tokio::test]
async fn so_they_do_while_the_ledger_has_two_forms() {
    contend(&System::expanded().await).await;
}

async fn contend(system: &System) {
    let (_service, api) = system.service().await;
    let seller = api.with_token(system.token("sam", "seller"));
    let item = seller.create("A contested lamp", Utc::now() + TimeDelta::hours(1)).await;
    // One stands before: else whoever offers most may come first, and nobody else could be accepted.
    let opening = api.with_token(system.token("early", "bidder")).bid(&item.item_id, 1_000).await.expect("a first bid");
    let bids = (0..BIDDERS).map(|n| {
        let api = api.with_token(system.token(&format!("bidder-{n}"), "bidder"));
        let item_id = item.item_id.clone();
        // Scattered, so that many are refused and many accepted, whatever the order they arrive in.
        let amount = 1_500 + (n * 7_919 % BIDDERS) * 500;
        async move { (format!("bidder-{n}"), amount, api.bid(&item_id, amount).await) }
    });
    let mut acknowledged = BTreeMap::from([(opening.sequence, ("early".to_owned(), 1_000))]);
    for (bidder, amount, result) in join_all(bids).await {
        match result {
            Ok(reply) => {
                assert_eq!(reply.price_minor, amount);
                assert!(acknowledged.insert(reply.sequence, (bidder, amount)).is_none(), "a sequence given twice");
            }
            Err(failure) => {
                let refused = failure.refused.as_ref().unwrap_or_else(|| panic!("not a refusal: {failure:?}"));
                assert!(refused.next_minimum_minor > amount, "{bidder} was refused at {amount}: {failure:?}");
            }
        }
    }
    let ledger: Vec<(i64, String, i64)> =
        sqlx::query_as("SELECT sequence, bidder_id, max_amount_minor FROM bids ORDER BY sequence")
            .fetch_all(&system.db)
            .await
            .expect("the ledger");
    let expected: Vec<_> = acknowledged.into_iter().map(|(at, (who, amount))| (at, who, amount)).collect();
    assert_eq!(ledger, expected, "the ledger is what was acknowledged");
    assert!(ledger.len() > 1, "several bids were accepted");
    for (index, (sequence, _, _)) in ledger.iter().enumerate() {
        assert_eq!(*sequence, index as i64 + 2, "gapless after the creation's 1");
    }
    assert!(ledger.windows(2).all(|pair| pair[0].2 < pair[1].2), "the price strictly rises");
    let (leader, price): (String, i64) =
        sqlx::query_as("SELECT leader_id, price_minor FROM items").fetch_one(&system.db).await.expect("the item");
    let (_, last_bidder, highest) = ledger.last().expect("an accepted bid");
    assert_eq!((&leader, price), (last_bidder, *highest));
}
