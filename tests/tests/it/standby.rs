//! Reads that may be some moments old go to a standby (`GAVEL_READ_URL`): a real one, that follows, falls behind, dies
//! and is promoted. Nobody who reads is told of it. And a log of writes that is not archived is.
use crate::broker::doctor;
use chrono::{TimeDelta, Utc};
use gavel_proto::v1;
use gavel_tests::{
    Api, Process, System, eventually,
    private::{Postgres, database_url},
};
use sqlx::PgPool;

/// What the standby shows is never older, in milliseconds.
const A_SECOND: &str = "1000";
const A_MINUTE: &str = "60000";

struct Replicated {
    system: System,
    primary: Postgres,
    standby: Postgres,
}

impl Replicated {
    async fn new() -> Self {
        let (system, primary) = (System::new().await, Postgres::primary().await);
        let standby = primary.standby().await;
        Self { system, primary, standby }
    }

    /// A service that writes to whichever of both is the primary, and reads from whichever is not.
    async fn service(&self, bound: &str) -> (Process, Api) {
        let both = database_url(&[&self.primary, &self.standby]);
        let read = database_url(&[&self.standby, &self.primary]);
        let bound = ("GAVEL_READ_STALENESS_MS", bound);
        let variables = [("DATABASE_URL", both.as_str()), ("GAVEL_READ_URL", read.as_str()), bound];
        let (service, api) = self.system.service_with(&variables).await;
        reads_there(&service, 1.0).await;
        (service, api)
    }

    fn seller(&self, api: &Api) -> Api {
        api.with_token(self.system.token("sam", "seller"))
    }
}

async fn reads_there(service: &Process, wanted: f64) {
    let used = || async { service.figure::<f64>("gavel_standby_in_use", &[]).await };
    eventually("reads go there, or no more", used, |used| *used == Some(wanted)).await;
}

/// Reads at the standby that came to that.
async fn reads(service: &Process, outcome: &str) -> f64 {
    service.figure("gavel_standby_reads_total", &[&format!("outcome=\"{outcome}\"")]).await.unwrap_or_default()
}

async fn run(db: &PgPool, sql: &'static str) {
    sqlx::query(sql).execute(db).await.expect("done");
}

async fn newest(api: &Api) -> String {
    let page = api.items(v1::ListItemsRequest { page_size: 1, ..v1::ListItemsRequest::default() }).await;
    page.expect("a list").items.first().map(|item| item.title.clone()).unwrap_or_default()
}

#[tokio::test]
async fn lists_come_from_the_standby_and_never_older_than_was_agreed() {
    let replicated = Replicated::new().await;
    let (service, api) = replicated.service(A_SECOND).await;
    let (seller, ends_at) = (replicated.seller(&api), Utc::now() + TimeDelta::hours(1));
    seller.create("A lamp", ends_at).await;
    eventually("it is listed", || newest(&api), |title| title == "A lamp").await;
    let before = reads(&service, "ok").await;
    assert_eq!(newest(&api).await, "A lamp");
    assert!(reads(&service, "ok").await > before, "the standby was not asked");

    let standby = replicated.standby.pool().await;
    run(&standby, "SELECT pg_wal_replay_pause()").await;
    seller.create("A chair", ends_at).await;
    // The old list for as long as was agreed; after that the primary's, although the standby still answers.
    reads_there(&service, 0.0).await;
    assert_eq!(newest(&api).await, "A chair");
    let age = service.figure::<f64>("gavel_standby_age_seconds", &[]).await.expect("it is known");
    assert!(age >= 1.0, "{age}");
    run(&standby, "SELECT pg_wal_replay_resume()").await;
    reads_there(&service, 1.0).await;
    assert_eq!(newest(&api).await, "A chair");
}

#[tokio::test]
async fn what_the_standby_does_not_know_yet_is_asked_of_the_primary() {
    let replicated = Replicated::new().await;
    let (service, api) = replicated.service(A_MINUTE).await;
    let (seller, ends_at) = (replicated.seller(&api), Utc::now() + TimeDelta::hours(1));
    let standby = replicated.standby.pool().await;
    run(&standby, "SELECT pg_wal_replay_pause()").await;
    let item = seller.create("A lamp", ends_at).await.item_id;
    // It is still fresh enough, and has neither the item nor its bids.
    let bids = api.bids(v1::ListBidsRequest { item_id: item, ..v1::ListBidsRequest::default() }).await;
    assert_eq!(bids.expect("the item is there").bids.len(), 0);
    assert!(reads(&service, "not_found").await > 0.0, "the standby was not asked");
}

#[tokio::test]
async fn a_standby_that_dies_costs_no_read() {
    let replicated = Replicated::new().await;
    let (service, api) = replicated.service(A_SECOND).await;
    replicated.seller(&api).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    replicated.standby.kill();
    while service.figure::<f64>("gavel_standby_in_use", &[]).await == Some(1.0) {
        assert_eq!(newest(&api).await, "A lamp");
    }
    assert_eq!(newest(&api).await, "A lamp");
}

#[tokio::test]
async fn a_standby_that_was_promoted_takes_the_bids_and_is_no_standby_any_more() {
    let replicated = Replicated::new().await;
    let (service, api) = replicated.service(A_SECOND).await;
    let ends_at = Utc::now() + TimeDelta::hours(1);
    let item = replicated.seller(&api).create("A lamp", ends_at).await.item_id;
    let alice = api.with_token(replicated.system.token("alice", "bidder"));
    let acknowledged = alice.bid(&item, 1_000).await.expect("accepted").bid_id;
    replicated.primary.kill();
    replicated.standby.promote().await;
    let bob = api.with_token(replicated.system.token("bob", "bidder"));
    let accepted = || async { bob.bid(&item, 2_000).await };
    eventually("bids are taken again", accepted, Result::is_ok).await.expect("accepted");
    reads_there(&service, 0.0).await;
    let request = || v1::ListBidsRequest { item_id: item.clone(), ..v1::ListBidsRequest::default() };
    let bids = api.bids(request()).await.expect("by the new primary").bids;
    assert_eq!(bids.len(), 2);
    assert_eq!(bids[1].bid_id, acknowledged);
}

#[tokio::test]
async fn a_log_of_writes_that_is_not_archived_is_found_by_the_doctor_and_a_gauge() {
    let (system, postgres) = (System::new().await, Postgres::archiving("false").await);
    let url = database_url(&[&postgres]);
    let (service, _) = system.service_with(&[("DATABASE_URL", &url)]).await;
    run(&postgres.pool().await, "SELECT pg_switch_wal()").await;
    let found = || async {
        let findings = doctor(&system, &[("DATABASE_URL", &url)], &service).await;
        let archive = findings.into_iter().find(|finding| finding["what"] == "archive").expect("it is looked at");
        archive["detail"].as_str().unwrap_or_default().to_owned()
    };
    eventually("the doctor says so", found, |detail| detail.contains("archived no more")).await;
    let worker = system.worker_with(&[], &[("DATABASE_URL", &url)]).await;
    let fails = || async { worker.figure::<f64>("gavel_archive_failing", &[]).await };
    eventually("a gauge says so", fails, |fails| *fails == Some(1.0)).await;
}
