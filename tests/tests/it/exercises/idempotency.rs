//! Sellers' figures, counted by a consumer that hears everything three times and dies before it acknowledges.
use super::figures;
use chrono::{TimeDelta, Utc};
use gavel_tests::{System, broker::Broker, system::CONSUMER_QUEUES};

#[tokio::test]
#[ignore = "waits for the exercise of milestone 4"]
async fn what_a_seller_has_published_and_cancelled_counts_once() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let makers = system.worker_with(&["--only", "relay_outbox"], &[]).await;
    let broker = Broker::connect(&system.amqp_url).await;
    broker.tap("tap").await;
    for (seller, published, cancelled) in [("sam", 3, 2), ("susan", 2, 0)] {
        let api = api.with_token(system.token(seller, "seller"));
        for n in 0..published {
            let item = api.create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
            if n < cancelled {
                api.cancel(&item.item_id, "").await.expect("nobody has bid");
            }
        }
    }
    let messages = broker.take("tap", 7).await;
    drop(makers);
    for queue in CONSUMER_QUEUES {
        broker.purge(queue).await;
    }
    for part in [&messages[..3], &messages, &messages] {
        for message in part {
            broker.replay(message).await;
        }
        let mut worker = system.start_worker(&[], &[("GAVEL_FAILPOINTS", "apply_user_stats.before_ack=abort@1")]);
        assert!(!worker.ended().await.success(), "the worker was meant to die: apply_user_stats hears of all this");
    }
    system.consume_everything(&broker).await;
    let counted = (figures(&system, "sam").await, figures(&system, "susan").await);
    assert_eq!(counted, ((3, 2), (2, 0)), "sam has published 3 items and cancelled 2, susan has published 2");
}
