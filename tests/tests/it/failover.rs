//! The primary dies and a standby takes its place; a session turns read-only; a pooler stands between. Bids go on.
use chrono::{TimeDelta, Utc};
use gavel_accounts::postgres::Role;
use gavel_tests::{
    Api, Process, System, eventually,
    private::{PgBouncer, Postgres, database_url},
};
use poem_grpc::Code;
use sqlx::PgPool;
use std::collections::BTreeSet;

async fn item(system: &System, api: &Api) -> String {
    api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await.item_id
}

async fn readyz(process: &Process) -> u16 {
    let url = format!("http://{}/readyz", process.ops_address().await);
    reqwest::get(url).await.expect("the process answers").status().as_u16()
}

async fn count(db: &PgPool, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(db).await.expect("counted")
}

#[tokio::test]
async fn after_a_failover_the_new_primary_is_found_among_the_hosts_and_no_acknowledged_bid_is_missing() {
    let (system, primary) = (System::new().await, Postgres::primary().await);
    let standby = primary.standby().await;
    let url = database_url(&[&primary, &standby]);
    let (service, api) = system.service_with(&[("DATABASE_URL", &url)]).await;
    let worker = system.worker_with(&[], &[("DATABASE_URL", &url)]).await;
    let item = item(&system, &api).await;
    let bidder = api.with_token(system.token("alice", "bidder"));
    let mut acknowledged = BTreeSet::new();
    for n in 0..20 {
        acknowledged.insert(bidder.bid(&item, 1_000 + 100 * n).await.expect("accepted").bid_id);
    }

    primary.kill();
    let refused = || async {
        match bidder.bid(&item, 50_000).await {
            Ok(reply) => panic!("{reply:?} was accepted by nobody"),
            Err(failure) => failure.code,
        }
    };
    eventually("bids fail", refused, |code| *code == Code::Unavailable).await;
    eventually("the service is not ready", || readyz(&service), |status| *status == 503).await;
    standby.promote().await;
    let accepted = || async { bidder.bid(&item, 60_000).await };
    let reply = eventually("bids are taken again", accepted, Result::is_ok).await.expect("accepted");
    acknowledged.insert(reply.bid_id);
    for process in [&service, &worker] {
        eventually("it is ready again", || readyz(process), |status| *status == 200).await;
    }
    let db = standby.pool().await;
    let there: Vec<String> = sqlx::query_scalar("SELECT bid_id::text FROM bids").fetch_all(&db).await.expect("read");
    let missing: Vec<_> = acknowledged.iter().filter(|bid| !there.contains(bid)).collect();
    assert!(missing.is_empty(), "acknowledged, and gone: {missing:?}");
    eventually("the worker relays again", || count(&db, "SELECT count(*) FROM outbox"), |left| *left == 0).await;
    let counted = || async { bidder.stats("").await.ok().and_then(|reply| Some(reply.stats.first()?.bids_placed)) };
    let all = i64::try_from(there.len()).expect("few");
    eventually("the statistics follow", counted, |bids| *bids == Some(all)).await;
}

#[tokio::test]
async fn a_session_that_turned_read_only_is_not_kept() {
    let system = System::new().await;
    let (service, api) = system.service_with(&[("GAVEL_POOL_SIZE", "1")]).await;
    let item = item(&system, &api).await;
    // The one session that takes bids is from its next transaction on what a session of a demoted primary is.
    for statement in [
        "CREATE FUNCTION demote() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN PERFORM set_config('default_transaction_read_only', 'on', false); RETURN NULL; END $$",
        "CREATE TRIGGER demote AFTER INSERT ON bids EXECUTE FUNCTION demote()",
    ] {
        sqlx::query(statement).execute(&system.db).await.expect("done");
    }
    let bidder = api.with_token(system.token("alice", "bidder"));
    bidder.bid(&item, 1_000).await.expect("accepted");
    sqlx::query("DROP TRIGGER demote ON bids").execute(&system.db).await.expect("dropped");
    for n in 1..=5 {
        bidder.bid(&item, 1_000 + 100 * n).await.expect("by another session");
    }
    assert_eq!(readyz(&service).await, 200);
}

#[tokio::test]
async fn a_server_that_takes_no_writes_is_none_and_health_says_so() {
    let system = System::new().await;
    let (service, api) = system.service().await;
    let item = item(&system, &api).await;
    let alter = format!("ALTER DATABASE {} SET default_transaction_read_only = ", system.name());
    sqlx::query(&format!("{alter} on")).execute(&system.db).await.expect("set");
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name LIKE 'bid-service%'";
    sqlx::query(end).execute(&system.db).await.expect("ended");
    eventually("it is noticed", || readyz(&service), |status| *status == 503).await;
    let bidder = api.with_token(system.token("alice", "bidder"));
    assert_eq!(bidder.bid(&item, 1_000).await.expect_err("there is no primary").code, Code::Unavailable);
    sqlx::query(&format!("{alter} off")).execute(&system.db).await.expect("set");
    let accepted = || async { bidder.bid(&item, 1_000).await.is_ok() };
    eventually("bids are taken again", accepted, |accepted| *accepted).await;
    eventually("it is ready again", || readyz(&service), |status| *status == 200).await;
}

#[tokio::test]
async fn through_a_pooler_of_sessions_everything_works_without_further_settings() {
    let system = System::new().await;
    let for_service = PgBouncer::start(system.database_url(Role::Service), "session").await;
    let for_worker = PgBouncer::start(system.database_url(Role::Worker), "session").await;
    let (_service, api) = system.service_with(&[("DATABASE_URL", &for_service.url)]).await;
    let _worker = system.worker_with(&[], &[("DATABASE_URL", &for_worker.url)]).await;
    let ends_at = Utc::now() + TimeDelta::seconds(3);
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", ends_at).await.item_id;
    let bidder = api.with_token(system.token("alice", "bidder"));
    bidder.bid(&item, 1_500).await.expect("accepted");
    let won = || async { bidder.stats("").await.expect("alice may").stats.first().map(|stats| stats.items_won) };
    eventually("the auction is closed and won", won, |won| *won == Some(1)).await;
}

#[tokio::test]
async fn a_pooler_of_transactions_is_refused_at_start_by_what_it_is() {
    let system = System::new().await;
    let pooler = PgBouncer::start(system.database_url(Role::Service), "transaction").await;
    let variables = system.service_variables(&[("DATABASE_URL", &pooler.url)]);
    for program in ["bid-service", "bid-worker"] {
        let mut process = Process::start(&gavel_tests::process::binary(program), &[], &variables);
        assert!(!process.ended().await.success(), "{program} has started");
        let said = process.output().join("\n");
        assert!(said.contains("transaction") && said.contains("session"), "{program}: {said}");
    }
}
