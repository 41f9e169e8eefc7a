//! SIGTERM under load.
use chrono::{TimeDelta, Utc};
use gavel_tests::System;
use poem_grpc::Code;
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

const GRACE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn sigterm_under_load_loses_no_acknowledged_bid_and_exits_cleanly_within_the_grace_period() {
    let system = System::new().await;
    let grace_ms = GRACE.as_millis().to_string();
    let (mut service, api) = system.service_with(&[("GAVEL_GRACE_MS", &grace_ms)]).await;
    let mut worker = system.worker_with(&[], &[("GAVEL_GRACE_MS", &grace_ms)]).await;
    let seller = api.with_token(system.token("sam", "seller"));
    let mut clients = Vec::new();
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let stop = Arc::new(AtomicBool::new(false));
    for n in 0..16 {
        let item = seller.create(&format!("Lamp {n}"), Utc::now() + TimeDelta::hours(1)).await.item_id;
        let api = api.with_token(system.token(&format!("bidder-{n}"), "bidder"));
        let (acknowledged, stop) = (acknowledged.clone(), stop.clone());
        clients.push(tokio::spawn(async move {
            let (mut kept, mut amount) = (Vec::new(), 1_000);
            while !stop.load(Ordering::Relaxed) {
                amount += 20_000;
                match api.bid(&item, amount).await {
                    Ok(reply) => {
                        acknowledged.fetch_add(1, Ordering::Relaxed);
                        kept.push(reply.bid_id);
                    }
                    // Not taken, or not known to be: the connection is gone. A refusal would be a fault of this test.
                    Err(failure) => {
                        assert_ne!(failure.code, Code::FailedPrecondition, "{failure:?}");
                        break;
                    }
                }
            }
            kept
        }));
    }
    gavel_tests::eventually(
        "the load is running",
        || async { acknowledged.load(Ordering::Relaxed) },
        |count| *count > 200,
    )
    .await;
    let began = Instant::now();
    service.terminate();
    worker.terminate();
    let (service_status, worker_status) = (service.ended().await, worker.ended().await);
    assert!(began.elapsed() < GRACE, "drained within the grace period");
    stop.store(true, Ordering::Relaxed);
    assert_eq!((service_status.code(), worker_status.code()), (Some(0), Some(0)), "{:?}", service.output().last());

    let mut kept = BTreeSet::new();
    for client in clients {
        kept.extend(client.await.expect("no client panics"));
    }
    let ledger: Vec<String> =
        sqlx::query_scalar("SELECT bid_id::text FROM bids").fetch_all(&system.db).await.expect("the ledger");
    let ledger: BTreeSet<_> = ledger.into_iter().collect();
    assert!(kept.is_subset(&ledger), "acknowledged and lost: {:?}", kept.difference(&ledger).collect::<Vec<_>>());
    assert!(kept.len() > 200);
}
