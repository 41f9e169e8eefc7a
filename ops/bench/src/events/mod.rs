//! Events: the outbox to the broker, a commit to a consumer, the broker to the statistics.
mod broker;
mod one_by_one;

use crate::{
    EXPAND, Measured,
    bids::{
        Bench,
        load::{self, Lots, percentile},
        service::Process,
    },
    extent, fresh,
    report::{Row, below, beside, median},
    waiting::{reached, until},
};
use broker::Broker;
use gavel_proto::events_v1::{BidAccepted, ItemEvent, ItemState, item_event::Fact};
use gavel_runtime::ids;
use prost::Message;
use sqlx::PgPool;
use std::{
    env,
    time::{Duration, Instant},
};

/// Events in the outbox when a relay starts, or in the queue when a consumer starts.
const EVENTS: u32 = 50_000;
/// For the baseline that has a transaction for each.
const ONE_BY_ONE: u32 = 5_000;
const USERS: u32 = 1_000;
const PER_SECOND: f64 = 500.0;
const TIME: Duration = Duration::from_secs(10);
const STATS_QUEUE: &str = "gavel.apply_user_stats";

pub(crate) fn variable(name: &str) -> anyhow::Result<String> {
    env::var(name).map_err(|_| anyhow::anyhow!("{name} is not set: started by cargo xtask bench"))
}

impl Bench<'_> {
    fn events_url(&self) -> String {
        format!("{}/bench_events", self.base)
    }

    async fn empty(&self) -> anyhow::Result<PgPool> {
        let pool = fresh(self.base, "bench_events").await?;
        EXPAND.run(&pool).await?;
        Ok(pool)
    }

    async fn worker(&self, only: &str) -> anyhow::Result<Process> {
        let (database, amqp, redis) = (self.events_url(), variable("AMQP_URL")?, variable("REDIS_URL")?);
        let variables =
            [("DATABASE_URL", database.as_str()), ("AMQP_URL", amqp.as_str()), ("REDIS_URL", redis.as_str())];
        self.releases.start("bid-worker", &["--only", only], &variables).await
    }

    /// A broker on which everything is declared and nothing waits.
    async fn broker(&self) -> anyhow::Result<Broker> {
        self.empty().await?.close().await;
        let broker = Broker::connect(&variable("AMQP_URL")?).await?;
        let worker = self.worker("relay_outbox").await?;
        until("the worker has declared its queues", || async { Ok(broker.is_declared().await) }).await?;
        drop(worker);
        broker.purge().await?;
        Ok(broker)
    }
}

/// An event as a bid causes one.
fn event(n: u32) -> ItemEvent {
    let item = ItemState {
        item_id: load::item_id(usize::try_from(n % 1_000).unwrap_or_default() + 1),
        title: "A lot".to_owned(),
        seller_id: "sam".to_owned(),
        currency: "EUR".to_owned(),
        start_price_minor: 1_000_000,
        price_minor: Some(2_000_000),
        bid_count: 1,
        next_minimum_minor: 2_010_000,
        ..ItemState::default()
    };
    let bid = BidAccepted {
        bid_id: ids::ordered().to_string(),
        bidder_id: format!("bidder-{}", n % USERS),
        outbid_user_id: "bidder".to_owned(),
    };
    let event_id = ids::ordered().to_string();
    ItemEvent { event_id, version: 2, item: Some(item), fact: Some(Fact::BidAccepted(bid)), ..ItemEvent::default() }
}

/// Fills the outbox, then measures a relay from its start until the outbox is empty.
async fn relayed(bench: &Bench<'_>, broker: &Broker) -> anyhow::Result<Measured> {
    let pool = bench.empty().await?;
    broker.purge().await?;
    sqlx::query(
        "INSERT INTO outbox (event_id, shard, key, version, routing_key, message_type, payload, correlation_id,
                             traceparent)
         SELECT gen_random_uuid(), n % 1000 % 16, 'key-' || n % 1000, n / 1000, 'bid.accepted',
                'gavel.events.v1.ItemEvent', $2, gen_random_uuid()::text, gen_random_uuid()::text
         FROM generate_series(1, $1) n",
    )
    .bind(i32::try_from(extent::count(EVENTS))?)
    .bind(event(1).encode_to_vec())
    .execute(&pool)
    .await?;
    for statement in ["VACUUM ANALYZE outbox", "CHECKPOINT"] {
        sqlx::query(statement).execute(&pool).await?;
    }
    let worker = bench.worker("relay_outbox").await?;
    let began = Instant::now();
    until("the outbox is empty", || async {
        let left: Option<i32> = sqlx::query_scalar("SELECT 1 FROM outbox LIMIT 1").fetch_optional(&pool).await?;
        Ok(left.is_none())
    })
    .await?;
    let took = began.elapsed();
    drop(worker);
    Ok(Measured { jobs: extent::count(EVENTS).into(), took })
}

pub(crate) async fn relay(bench: &Bench<'_>, rounds: usize) -> anyhow::Result<Vec<Row>> {
    let broker = bench.broker().await?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for number in 1..=rounds {
        eprintln!("  … round {number} of {rounds}");
        ours.push(relayed(bench, &broker).await?.per_second());
        broker.purge().await?;
        bare.push(broker.publish_events(extent::count(EVENTS), &event(1).encode_to_vec()).await?.per_second());
    }
    eprintln!("  … from a decision to a consumer");
    let lags = lags(bench, &broker).await?;
    let work = "from decision (before the commit) to consumer, 500 events/s";
    Ok(vec![
        beside("outbox to confirmed", "events/s", median(ours), ("lapin, pipelined confirms", median(bare)), 0.7),
        below(&format!("{work}, p50"), "ms", percentile(&lags, 50), 20.0),
        below(&format!("{work}, p99"), "ms", percentile(&lags, 99), 100.0),
    ])
}

/// Returns how old each event is when a consumer has it, in ms, sorted: from the instant of the decision, by the
/// database's clock.
async fn lags(bench: &Bench<'_>, broker: &Broker) -> anyhow::Result<Vec<f64>> {
    let items = 1_000;
    bench.stage(items).await?.close().await;
    let url = bench.url();
    let (amqp, redis) = (variable("AMQP_URL")?, variable("REDIS_URL")?);
    let variables = [("DATABASE_URL", url.as_str()), ("AMQP_URL", amqp.as_str()), ("REDIS_URL", redis.as_str())];
    let _worker = bench.releases.start("bid-worker", &["--only", "relay_outbox"], &variables).await?;
    let service = bench.releases.start("bid-service", &[], &variables).await?;
    let mut tap = broker.tap().await?;
    let clients = load::connect(&bench.releases, &service.address, 16).await?;
    let lots = Lots::new(items);
    let bids = load::open(clients, &lots, PER_SECOND, extent::time(Duration::from_secs(2)), extent::time(TIME));
    let heard = async {
        let mut lags = Vec::new();
        while let Some(payload) = tap.next(Duration::from_secs(4)).await? {
            let event = ItemEvent::decode(&payload[..])?;
            let decided = event.occurred_at.unwrap_or_default();
            let now = gavel_runtime::clock::wall().timestamp_micros();
            let then = decided.seconds * 1_000_000 + i64::from(decided.nanos) / 1_000;
            lags.push(f64::from(i32::try_from(now - then)?) / 1_000.0);
        }
        anyhow::Ok(lags)
    };
    let (tally, mut lags) = tokio::try_join!(bids, heard)?;
    anyhow::ensure!(lags.len() >= usize::try_from(tally.accepted)?, "{} events of {} bids", lags.len(), tally.accepted);
    lags.sort_by(f64::total_cmp);
    Ok(lags)
}

/// Fills the consumer's queue, then measures from the consumer's start until everything is counted.
async fn counted(bench: &Bench<'_>, broker: &Broker, events: u32, batched: bool) -> anyhow::Result<Measured> {
    let pool = bench.empty().await?;
    broker.purge().await?;
    broker.publish_to(STATS_QUEUE, events, |n| event(n).encode_to_vec()).await?;
    let bids = || async {
        let counted: Option<i64> =
            sqlx::query_scalar("SELECT sum(bids_placed)::bigint FROM user_stats").fetch_one(&pool).await?;
        Ok(counted.unwrap_or_default().cast_unsigned())
    };
    let done = reached("every event is counted", events.into(), bids);
    let took = if batched {
        let worker = bench.worker("apply_user_stats").await?;
        let began = Instant::now();
        done.await?;
        let took = began.elapsed();
        drop(worker);
        took
    } else {
        let worker = one_by_one::start(&bench.events_url(), &variable("AMQP_URL")?)?;
        let began = Instant::now();
        done.await?;
        let took = began.elapsed();
        worker.stop(TIME).await?;
        took
    };
    Ok(Measured { jobs: events.into(), took })
}

pub(crate) async fn stats(bench: &Bench<'_>, rounds: usize) -> anyhow::Result<Vec<Row>> {
    let broker = bench.broker().await?;
    let (mut ours, mut single) = (Vec::new(), Vec::new());
    for number in 1..=rounds {
        eprintln!("  … round {number} of {rounds}");
        ours.push(counted(bench, &broker, extent::count(EVENTS), true).await?.per_second());
        single.push(counted(bench, &broker, extent::count(ONE_BY_ONE), false).await?.per_second());
    }
    let baseline = ("a transaction for each, 4 at a time", median(single));
    Ok(vec![beside("events applied to statistics", "events/s", median(ours), baseline, 8.0)])
}
