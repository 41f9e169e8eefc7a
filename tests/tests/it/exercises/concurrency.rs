//! A limit that is looked at and then used up, by many at once.
use super::{MOST_OPEN, sam_has_open};
use chrono::{TimeDelta, Utc};
use futures_util::future::join_all;
use gavel_tests::{System, eventually};
use poem_grpc::Code;
use sqlx::Connection;

/// Publications that are left to sam.
const LEFT: i64 = 5;
const AT_ONCE: usize = 20;

#[tokio::test]
#[ignore = "waits for the exercise of milestone 2"]
async fn a_seller_has_so_many_items_open_and_no_more_however_many_come_at_once() {
    let system = System::new().await;
    let ((_one, api), (_other, other)) = (system.service().await, system.service().await);
    sam_has_open(&system, MOST_OPEN - LEFT).await;
    let of = |index: usize| {
        let api = if index.is_multiple_of(2) { &api } else { &other };
        api.with_token(system.token("sam", "seller"))
    };

    // Nobody's item is there before more have looked than may publish: who has counted without a lock has counted wrong.
    let mut held = sqlx::PgConnection::connect(system.administrator_url()).await.expect("connected");
    let mut tx = held.begin().await.expect("begun");
    sqlx::query("LOCK TABLE items IN SHARE MODE").execute(&mut *tx).await.expect("locked");
    let publish = join_all((0..AT_ONCE).map(|index| {
        let seller = of(index);
        async move { seller.try_create("A lamp", Utc::now() + TimeDelta::hours(1)).await }
    }));
    let release = async {
        let waiting = || system.waiting_for_locks("bid-service");
        eventually("more have come than may publish", waiting, |waiting| *waiting > LEFT).await;
        tx.commit().await.expect("free again");
    };
    let (published, ()) = tokio::join!(publish, release);

    let accepted = published.iter().filter(|reply| reply.is_ok()).count();
    let open = system.count("SELECT count(*) FROM items WHERE seller_id = 'sam' AND closed_at IS NULL").await;
    assert!(open <= MOST_OPEN, "sam has {open} items open; allowed: {MOST_OPEN}");
    assert_eq!((accepted as i64, open), (LEFT, MOST_OPEN), "what was left could be published");
    for refused in published.iter().filter_map(|reply| reply.as_ref().err()) {
        assert_eq!(refused.code, Code::FailedPrecondition, "a refusal, and no error: {refused:?}");
        assert!(refused.message.contains("100"), "it names what is allowed: {}", refused.message);
    }
    let others = of(0).with_token(system.token("susan", "seller"));
    others.try_create("A lamp", Utc::now() + TimeDelta::hours(1)).await.expect("susan's limit is her own");
}
