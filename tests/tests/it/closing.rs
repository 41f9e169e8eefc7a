//! An auction closes once, whoever dies while closing it; and a bid counts by the moment at which it holds its item.
use chrono::{DateTime, TimeDelta, Utc};
use gavel_proto::v1::PlaceBidResponse;
use gavel_tests::{Api, Failure, System, broker::Broker, eventually};
use poem_grpc::Code;
use sqlx::{Postgres, Transaction};
use tokio::task::JoinHandle;

#[tokio::test]
async fn a_worker_killed_while_closing_leaves_one_close_one_event_and_one_sale() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let ends_at = Utc::now() + TimeDelta::seconds(2);
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", ends_at).await;
    let alice = api.with_token(system.token("alice", "bidder"));
    alice.bid(&item.item_id, 1_500).await.expect("accepted");
    for stage in ["after_claim", "before_commit"] {
        let fault = format!("close_item.{stage}=abort@1");
        let mut worker = system.start_worker(&["--only", "close_item"], &[("GAVEL_FAILPOINTS", &fault)]);
        assert!(!worker.ended().await.success(), "the worker was meant to die at {stage}");
        let closed: i64 = sqlx::query_scalar("SELECT count(*) FROM items WHERE closed_at IS NOT NULL")
            .fetch_one(&system.db)
            .await
            .expect("counted");
        assert_eq!(closed, 0, "nothing of it is left after {stage}");
    }
    let mut worker =
        system.start_worker(&["--only", "close_item"], &[("GAVEL_FAILPOINTS", "close_item.after_commit=abort@1")]);
    assert!(!worker.ended().await.success(), "the worker was meant to die after its commit");
    let left_behind = sqlx::query_as::<_, (i64, i64, i64)>(
        "SELECT (SELECT count(*) FROM items WHERE closed_at >= ends_at),
                (SELECT count(*) FROM outbox WHERE routing_key = 'item.closed'),
                (SELECT count(*) FROM mq_msgs WHERE id <> uuid_nil())",
    );
    let left_behind = left_behind.fetch_one(&system.db).await.expect("counted");
    assert_eq!(left_behind, (1, 1, 0), "closed, announced, and the job is gone");

    let _relay = system.worker_with(&["--only", "relay_outbox"], &[]).await;
    let left = || async {
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM outbox").fetch_one(&system.db).await.expect("counted")
    };
    eventually("the outbox is empty", left, |left| *left == 0).await;
    system.consume_everything(&Broker::connect(&system.amqp_url).await).await;
    let stats = alice.stats("").await.expect("alice may see it").stats.remove(0);
    assert_eq!((stats.bids_placed, stats.items_won, stats.total_spent_minor), (1, 1, 1_500));
}

/// An item that ends so soon, which somebody holds, and a bid that waits for it.
async fn waiting_bid(
    system: &System,
    api: &Api,
    ends_at: DateTime<Utc>,
) -> (String, Transaction<'static, Postgres>, JoinHandle<Result<PlaceBidResponse, Failure>>) {
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", ends_at).await.item_id;
    let mut holder = system.db.begin().await.expect("a transaction");
    let lock = sqlx::query("SELECT FROM items WHERE item_id = $1::uuid FOR UPDATE").bind(&item);
    lock.execute(&mut *holder).await.expect("locked");
    let (alice, wanted) = (api.with_token(system.token("alice", "bidder")), item.clone());
    let bid = tokio::spawn(async move { alice.bid(&wanted, 1_500).await });
    let waiting = || system.waiting_for_locks("bid-service");
    eventually("the bid waits for the item", waiting, |found| *found == 1).await;
    (item, holder, bid)
}

#[tokio::test]
async fn a_bid_that_waited_for_its_item_across_the_end_is_too_late() {
    /// Ends while one transaction waits, which takes so long and no longer: mostly the first time.
    const TRIES: usize = 8;
    let system = System::new().await;
    let (_service, api) = system.service().await;
    for _ in 0..TRIES {
        let (item, mut holder, bid) = waiting_bid(&system, &api, Utc::now() + TimeDelta::seconds(2)).await;
        let end = "SELECT pg_sleep(extract(epoch FROM ends_at - clock_timestamp()) + 0.001) FROM items
                   WHERE item_id = $1::uuid AND ends_at > clock_timestamp()";
        let ended = sqlx::query(end).bind(&item).execute(&mut *holder).await.expect("it ends");
        if ended.rows_affected() == 0 {
            // A slow machine: it had ended before the bid waited.
            holder.rollback().await.expect("let go");
            continue;
        }
        // One that began before the end, and still waits.
        let straddles = "SELECT count(*) FROM pg_stat_activity, items
                         WHERE datname = current_database() AND wait_event_type = 'Lock' AND item_id = $1::uuid
                           AND xact_start < ends_at";
        let straddling: i64 = sqlx::query_scalar(straddles).bind(&item).fetch_one(&mut *holder).await.expect("looked");
        holder.rollback().await.expect("let go");
        let late = bid.await.expect("it ran").expect_err("it came to its turn too late");
        assert_eq!(late.code, Code::FailedPrecondition, "{late:?}");
        if straddling > 0 {
            return;
        }
    }
    panic!("no transaction waited across the end");
}

#[tokio::test]
async fn a_bid_that_waited_for_its_item_is_decided_on_what_it_finds_then() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let (item, mut holder, bid) = waiting_bid(&system, &api, Utc::now() + TimeDelta::hours(1)).await;
    let cancel = "UPDATE items SET ends_at = now(), closed_at = now(), cancel_reason = 'broken', version = version + 1
                  WHERE item_id = $1::uuid";
    sqlx::query(cancel).bind(&item).execute(&mut *holder).await.expect("cancelled");
    holder.commit().await.expect("committed");
    let late = bid.await.expect("it ran").expect_err("it is cancelled by then");
    assert_eq!(late.code, Code::FailedPrecondition, "{late:?}");
    let bids: i64 = sqlx::query_scalar("SELECT count(*) FROM bids").fetch_one(&system.db).await.expect("counted");
    assert_eq!(bids, 0);
}
