//! What anybody may do without a token takes nothing from those who bid: reads and streams are limited by where they
//! come from, a page costs a page, readiness is no read, and nothing of the operators' is within reach.
use chrono::{TimeDelta, Utc};
use futures_util::{StreamExt, future::join_all};
use gavel_gateway::Kind;
use gavel_proto::v1::{self, ItemStatus};
use gavel_tests::{Api, RunningGateway, System, eventually};
use poem_grpc::Code;
use reqwest::{Client, StatusCode};
use sqlx::PgPool;
use std::time::{Duration, Instant};

async fn item(system: &System, api: &Api) -> String {
    api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await.item_id
}

fn says_when(details: &[prost_types::Any]) -> bool {
    details.iter().any(|detail| detail.type_url == "type.googleapis.com/google.rpc.RetryInfo")
}

/// Rows of items that were fetched so far, by whatever means. Counted when a session has ended.
async fn fetched(db: &PgPool) -> i64 {
    let rows = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'items'";
    sqlx::query_scalar(rows).fetch_one(db).await.expect("counted")
}

#[tokio::test]
async fn a_page_of_items_reads_that_page_beside_a_million_others() {
    let system = System::new().await;
    let million = "INSERT INTO items (item_id, seller_id, title, currency, start_price_minor, ladder_version, starts_at, ends_at, closed_at)
                   SELECT (lpad(to_hex(1700000000000 + n), 12, '0') || '70008000' || lpad(to_hex(n), 12, '0'))::uuid,
                          'sam', 'An old lamp', 'EUR', 100, 1, now() - interval '2 days', now() - interval '1 day', now()
                   FROM generate_series(1, 1000000) n";
    sqlx::query(million).execute(&system.db).await.expect("a million closed items");
    sqlx::query("ANALYZE items").execute(&system.db).await.expect("analysed");
    let (_service, api) = system.service_with(&[("GAVEL_READ_POOL_SIZE", "1")]).await;
    for _ in 0..3 {
        item(&system, &api).await;
    }
    // Older than any open item: nothing of a page is to be found beyond it.
    let older = "01000000-0000-7000-8000-000000000000";
    for (status, page_token, expected) in [
        (ItemStatus::Open, older, 0),
        (ItemStatus::Open, "", 3),
        (ItemStatus::Closed, "", 20),
        (ItemStatus::Closed, "ffffffff-0000-7000-8000-000000000000", 20),
        (ItemStatus::Closing, "", 0),
        (ItemStatus::Unspecified, "", 20),
    ] {
        let before = settled(&system.db).await;
        let request = v1::ListItemsRequest { page_size: 20, page_token: page_token.to_owned(), status: status.into() };
        let listed = api.items(request).await.expect("listed").items.len();
        assert_eq!(listed, expected, "{status:?} {page_token}");
        let read = settled(&system.db).await - before;
        assert!(read <= 25, "a page of {listed} {status:?} items read {read} rows");
    }
}

/// As [`fetched`], once all that was read is counted: sessions say so when they are idle for a moment.
async fn settled(db: &PgPool) -> i64 {
    let mut last = (fetched(db).await, Instant::now());
    while last.1.elapsed() < Duration::from_millis(1_300) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = fetched(db).await;
        if now != last.0 {
            last = (now, Instant::now());
        }
    }
    last.0
}

#[tokio::test]
async fn reads_that_take_every_connection_take_neither_readiness_nor_bids() {
    let system = System::new().await;
    let boundless = [("GAVEL_READS_PER_ADDRESS", "0"), ("GAVEL_READ_POOL_SIZE", "2")];
    let (service, api) = system.service_with(&boundless).await;
    let id = item(&system, &api).await;
    // Reads of user statistics wait, as slow ones would; bids need none of it.
    let mut holder = system.db.begin().await.expect("a transaction");
    sqlx::query("LOCK TABLE user_stats IN ACCESS EXCLUSIVE MODE").execute(&mut *holder).await.expect("locked");
    let alice = api.with_token(system.token("alice", "bidder"));
    let began = Instant::now();
    let flood = async {
        while began.elapsed() < Duration::from_secs(12) {
            join_all((0..20).map(|_| alice.stats(""))).await;
        }
    };
    let steady = async {
        let url = format!("http://{}/readyz", service.address().await);
        let bob = api.with_token(system.token("bob", "bidder"));
        let mut amount = 1_000;
        // Longer than a busy database is taken for one.
        while began.elapsed() < Duration::from_secs(12) {
            let reply = reqwest::get(&url).await.expect("answered");
            assert_eq!(reply.status(), StatusCode::OK, "{}", reply.text().await.unwrap_or_default());
            bob.bid(&id, amount).await.expect("accepted");
            amount += 1_000;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::join!(flood, steady);
    holder.rollback().await.expect("released");
}

#[tokio::test]
async fn one_address_reads_only_so_often_and_takes_nothing_from_those_who_signed_in() {
    let system = System::new().await;
    let (_service, api) = system.service_with(&[("GAVEL_READS_PER_ADDRESS", "5")]).await;
    let id = item(&system, &api).await;
    let reads = join_all((0..40).map(|n| {
        // A header that anybody can send changes nothing.
        let stranger = api.with_header("x-forwarded-for", &format!("203.0.113.{n}"));
        let id = id.clone();
        async move { stranger.item(&id).await }
    }));
    let refused: Vec<_> = reads.await.into_iter().filter_map(Result::err).collect();
    assert!((25..=32).contains(&refused.len()), "{} of 40 were refused", refused.len());
    for failure in &refused {
        assert_eq!(failure.code, Code::ResourceExhausted, "{failure:?}");
        assert!(failure.message.contains("5 reads a second") && says_when(&failure.details), "{failure:?}");
    }
    let alice = api.with_token(system.token("alice", "bidder"));
    alice.item(&id).await.expect("who signed in has a limit of her own");
    alice.bid(&id, 1_000).await.expect("accepted");
}

#[tokio::test]
async fn nginx_vouches_for_the_address_it_sees_and_not_for_the_one_it_is_told() {
    is_counted_where_it_comes_from(Kind::Nginx).await;
}

#[tokio::test]
async fn haproxy_vouches_for_the_address_it_sees_and_not_for_the_one_it_is_told() {
    is_counted_where_it_comes_from(Kind::Haproxy).await;
}

async fn is_counted_where_it_comes_from(kind: Kind) {
    let system = System::new().await;
    // The gateway's word is taken, and the test's own address is none of the trusted ones.
    let limits = [("GAVEL_READS_PER_ADDRESS", "5"), ("GAVEL_TRUSTED_PROXIES", "127.0.0.1")];
    let (service, api) = system.service_with(&limits).await;
    let id = item(&system, &api).await;
    let gateway = RunningGateway::open(kind, &[&service]).await;
    let (client, url) = (gateway.client(), format!("{}/api/gavel.v1.ItemService/GetItem", gateway.url));
    let ask = |n: usize| {
        let request = client.post(&url).header("content-type", "application/json");
        let request = request.header("x-forwarded-for", format!("203.0.113.{n}, 198.51.100.{n}"));
        request.body(format!("{{\"itemId\": \"{id}\"}}")).send()
    };
    let answers = join_all((0..40).map(ask)).await;
    let refused = answers
        .into_iter()
        .filter(|answer| answer.as_ref().is_ok_and(|reply| reply.status() == StatusCode::TOO_MANY_REQUESTS));
    let refused = refused.count();
    assert!((25..=32).contains(&refused), "{refused} of 40 were refused");
}

#[tokio::test]
async fn one_address_opens_only_so_many_streams_and_a_bidder_finds_a_place() {
    let system = System::new().await;
    let (_service, api) = system.service_with(&[("GAVEL_STREAMS_PER_ADDRESS", "20")]).await;
    let id = item(&system, &api).await;
    let mut open = Vec::new();
    for _ in 0..20 {
        let mut stream = api.watch_item(&id, 0).await.expect("opened");
        stream.next().await.expect("a frame").expect("no error");
        open.push(stream);
    }
    let refused = match api.watch_item(&id, 0).await {
        Err(failure) => (failure.code, failure.message),
        Ok(mut stream) => {
            let status = stream.next().await.expect("an end").expect_err("one too many");
            (status.code(), status.message().unwrap_or_default().to_owned())
        }
    };
    assert_eq!(refused.0, Code::ResourceExhausted);
    assert!(refused.1.contains("one address") && refused.1.contains("allowed: 20"), "{}", refused.1);
    let alice = api.with_token(system.token("alice", "bidder"));
    let mut stream = alice.watch_item(&id, 0).await.expect("opened");
    stream.next().await.expect("a frame").expect("she has a place");
    drop(open);
    let again = || async {
        match api.watch_item(&id, 0).await {
            Ok(mut stream) => stream.next().await.is_some_and(|frame| frame.is_ok()),
            Err(_) => false,
        }
    };
    eventually("places are given back", again, |opened| *opened).await;
}

#[tokio::test]
async fn one_address_takes_only_so_many_connections() {
    let system = System::new().await;
    let (service, _) = system.service_with(&[("GAVEL_CONNECTIONS_PER_ADDRESS", "3")]).await;
    let address = service.address().await;
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(tokio::net::TcpStream::connect(&address).await.expect("connected"));
    }
    let url = format!("http://{address}/healthz");
    let rejected = || async { Client::new().get(&url).send().await.is_err() };
    eventually("one more is closed", rejected, |closed| *closed).await;
    let ops = format!("http://{}/healthz", service.ops_address().await);
    assert_eq!(reqwest::get(ops).await.expect("operators have their own").status(), StatusCode::OK);
    open.pop();
    let answers = || async { Client::new().get(&url).send().await.is_ok() };
    eventually("there is a place again", answers, |answers| *answers).await;
}

#[tokio::test]
async fn nothing_of_the_operators_is_served_to_the_public() {
    let system = System::new().await;
    let (service, _) = system.service().await;
    let (public, ops) = (service.address().await, service.ops_address().await);
    let token = format!("Bearer {}", system.token("olga", "ops"));
    let call = async |address: &str, path: &str| {
        let request = Client::new().post(format!("http://{address}{path}")).header("authorization", &token);
        request.header("content-type", "application/json").body("{}").send().await.expect("answered").status()
    };
    for path in ["/gavel.v1.OpsService/ListQueues", "/externalscaler.ExternalScaler/IsActive"] {
        assert_eq!(call(&public, path).await, StatusCode::NOT_FOUND, "{path}");
        assert_ne!(call(&ops, path).await, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(
        call(&public, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo").await,
        StatusCode::NOT_FOUND
    );
    for (address, status) in [(&public, StatusCode::NOT_FOUND), (&ops, StatusCode::OK)] {
        let reply = reqwest::get(format!("http://{address}/metrics")).await.expect("answered");
        assert_eq!(reply.status(), status, "{address}");
    }
}
