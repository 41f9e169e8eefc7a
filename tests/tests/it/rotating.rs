//! Passwords at RabbitMQ and Redis, changed while bids go on; PostgreSQL's are in `roles.rs`.
use chrono::{TimeDelta, Utc};
use gavel_proto::v1::{GetItemResponse, ReadSource};
use gavel_tests::{
    Api, System, accounts, eventually,
    servers::{Servers, host_of},
};

#[tokio::test]
async fn passwords_at_rabbitmq_and_redis_are_rotated_while_bids_go_on() {
    let (system, servers) = (System::new().await, Servers::of_this_run());
    let (mut service, api) = system.service().await;
    let mut worker = system.worker().await;
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    let alice = |api: &Api| api.with_token(system.token("alice", "bidder"));
    alice(&api).bid(&item.item_id, 1_000).await.expect("accepted");

    let second = accounts::second(&servers, system.name()).await;
    let [of_service, of_worker] =
        second.each_ref().map(|account| [("AMQP_URL", &*account.amqp_url), ("REDIS_URL", &*account.redis_url)]);
    let (renewed, renewed_api) = system.service_with(&of_service).await;
    let renewed_worker = system.worker_with(&[], &of_worker).await;
    alice(&api).bid(&item.item_id, 2_000).await.expect("accepted by the first");
    for process in [&mut service, &mut worker] {
        process.terminate();
        assert!(process.ended().await.success());
    }
    accounts::end_first(&servers, system.name()).await;

    let newest = alice(&renewed_api).bid(&item.item_id, 3_000).await.expect("accepted by the second");
    let counted = || async {
        let stats = alice(&renewed_api).stats("").await.expect("one's own").stats;
        stats.first().map_or(0, |stats| stats.bids_placed)
    };
    eventually("all three are relayed and counted", counted, |bids| *bids == 3).await;
    let shown = || async { renewed_api.item(&item.item_id).await.expect("shown") };
    let is_newest = |shown: &GetItemResponse| {
        let version = shown.item.as_ref().map(|item| item.version);
        shown.source() == ReadSource::ReadModel && version == Some(newest.sequence)
    };
    eventually("the read model has the newest", shown, is_newest).await;
    for process in [renewed, renewed_worker] {
        assert!(!process.has_ended(), "it goes on");
    }
    let first =
        redis::Client::open(format!("redis://gavel_service_{0}:{0}@{1}", system.name(), host_of(&servers.redis)));
    let first = first.expect("a URL").get_multiplexed_async_connection().await;
    assert!(first.is_err(), "the first password has ended");
}
