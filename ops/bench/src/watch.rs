//! Watchers of one item, each on a connection of its own, while it is bid on.
use crate::{
    bids::{
        Bench,
        client::framed,
        load::{self, Lots, item_id, percentile},
        service::Process,
    },
    events::variable,
    poll_until,
    report::{Row, above, below},
};
use anyhow::Context;
use bytes::{Buf, Bytes, BytesMut};
use chrono::{DateTime, Utc};
use futures_util::future::try_join_all;
use gavel_proto::v1::{WatchItemRequest, WatchItemResponse, watch_item_response::Frame};
use gavel_runtime::clock;
use http::{Request, header::CONTENT_TYPE};
use prost::Message;
use sqlx::PgPool;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{net::TcpStream, task::LocalSet};

/// How many watch, in the order of the rows. The goals are those of the second.
const WATCHERS: [u32; 3] = [200, 2_000, 5_000];
const JUDGED: u32 = 2_000;
/// Connections made at a time.
const AT_A_TIME: usize = 250;
const BIDS_PER_SECOND: u64 = 50;
const WARM_UP: Duration = Duration::from_secs(3);
const TIME: Duration = Duration::from_secs(10);

/// Which version came when, of all watchers.
#[derive(Default)]
struct Seen {
    watching: u32,
    /// Of each watcher.
    arrivals: Vec<Vec<(i64, DateTime<Utc>)>>,
}

impl Seen {
    /// For each version and each watcher: how late it, or a newer one, came, in ms, sorted. And how many came themselves.
    fn late(&self, decided: &[(i64, DateTime<Utc>)]) -> (Vec<f64>, u32) {
        let (mut late, mut themselves) = (Vec::new(), 0);
        for arrivals in &self.arrivals {
            let mut came = arrivals.iter().peekable();
            for (version, decided) in decided {
                while came.peek().is_some_and(|(came, _)| came < version) {
                    came.next();
                }
                let Some((newer, at)) = came.peek() else { break };
                themselves += u32::from(newer == version);
                let micros = (*at - *decided).num_microseconds().and_then(|micros| i32::try_from(micros).ok());
                late.push(f64::from(micros.unwrap_or(i32::MAX)) / 1_000.0);
            }
        }
        late.sort_by(f64::total_cmp);
        (late, themselves)
    }
}

type Shared = Arc<Mutex<Seen>>;

fn lock(seen: &Shared) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) async fn run(bench: &Bench<'_>, only: Option<&str>) -> anyhow::Result<Vec<Row>> {
    let chosen = only.map(str::parse::<u32>).transpose()?;
    let mut rows = Vec::new();
    for watchers in chosen.map_or(WATCHERS.to_vec(), |chosen| vec![chosen]) {
        eprintln!("  … {watchers} watchers");
        rows.extend(LocalSet::new().run_until(watched(bench, watchers)).await?);
    }
    Ok(rows)
}

async fn watched(bench: &Bench<'_>, watchers: u32) -> anyhow::Result<Vec<Row>> {
    let pool = bench.stage(1).await?;
    let service = start(bench, "bid-service", &[]).await?;
    let _relay = start(bench, "bid-worker", &["--only", "relay_outbox"]).await?;
    let bidder = load::connect(&bench.releases, &service.address, 1).await?.remove(0);
    let (before, _) = service.memory()?;
    let seen = Shared::default();
    let all: Vec<_> = (0..watchers).collect();
    for some in all.chunks(AT_A_TIME) {
        try_join_all(some.iter().map(|_| watch(&service.address, seen.clone()))).await?;
    }
    poll_until(|| async { Ok(lock(&seen).watching == watchers) }).await?;
    // Until the first heartbeats and counts are through.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let each_kib = (service.memory()?.0 - before) * 1_024.0 / f64::from(watchers);
    lock(&seen).arrivals.iter_mut().for_each(Vec::clear);

    let lots = Lots::new(1);
    let mut tick = tokio::time::interval(Duration::from_micros(1_000_000 / BIDS_PER_SECOND));
    let from = clock::wall() + WARM_UP;
    while clock::wall() < from + TIME {
        tick.tick().await;
        let (item, amount) = lots.next();
        bidder.bid(&item, amount).await?;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let decided = decided(&pool, from).await?;
    let seen = lock(&seen);
    let (late, themselves) = seen.late(&decided);
    let share = 100.0 * f64::from(themselves) / f64::from(u32::try_from(late.len())?);
    let goal = |goal: f64| if watchers == JUDGED { goal } else { f64::INFINITY };
    let work = format!("{watchers} watchers, {BIDS_PER_SECOND} bids/s");
    Ok(vec![
        below(
            &format!("from decision (before the commit) to the client that has it or a newer one, {work}, p50"),
            "ms",
            percentile(&late, 50),
            goal(50.0),
        ),
        below(
            &format!("from decision (before the commit) to the client that has it or a newer one, {work}, p99"),
            "ms",
            percentile(&late, 99),
            goal(250.0),
        ),
        above(&format!("versions that came themselves, not a newer one instead, {work}"), "%", share, 0.0),
        below(&format!("memory per idle watcher, {watchers} watchers"), "KiB", each_kib, goal(40.0)),
        below(&format!("memory of the service at most, {work}"), "MiB", service.memory()?.1, f64::INFINITY),
    ])
}

async fn start(bench: &Bench<'_>, program: &str, arguments: &[&str]) -> anyhow::Result<Process> {
    let (database, amqp, redis) = (bench.url(), variable("AMQP_URL")?, variable("REDIS_URL")?);
    let variables = [("DATABASE_URL", database.as_str()), ("AMQP_URL", amqp.as_str()), ("REDIS_URL", redis.as_str())];
    bench.releases.start(program, arguments, &variables).await
}

/// When each version was decided, by the database's clock, from then on.
async fn decided(pool: &PgPool, from: DateTime<Utc>) -> anyhow::Result<Vec<(i64, DateTime<Utc>)>> {
    let rows =
        sqlx::query_as("SELECT sequence, decided_at FROM bids WHERE decided_at >= $1 ORDER BY sequence").bind(from);
    Ok(rows.fetch_all(pool).await?)
}

/// Begins to watch; goes on until the service is gone.
async fn watch(address: &str, seen: Shared) -> anyhow::Result<()> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (send, connection) = h2::client::handshake(stream).await?;
    tokio::task::spawn_local(connection);
    let request = Request::post(format!("http://{address}/gavel.v1.ItemService/WatchItem"));
    let request = request.header(CONTENT_TYPE, "application/grpc").header("te", "trailers").body(())?;
    let asked = WatchItemRequest { item_id: item_id(1), known_version: 0 };
    let (response, mut sending) = send.ready().await?.send_request(request, false)?;
    sending.send_data(framed(&asked)?, true)?;
    let response = response.await.context("the stream is not opened")?;
    tokio::task::spawn_local(read(response.into_body(), seen));
    Ok(())
}

async fn read(mut body: h2::RecvStream, seen: Shared) {
    let mut buffer = BytesMut::new();
    let watcher = {
        let arrivals = &mut lock(&seen).arrivals;
        arrivals.push(Vec::new());
        arrivals.len() - 1
    };
    while let Some(Ok(chunk)) = body.data().await {
        let _ = body.flow_control().release_capacity(chunk.len());
        buffer.extend_from_slice(&chunk);
        while let Some(frame) = take_frame(&mut buffer) {
            let response = WatchItemResponse::decode(frame).unwrap_or_default();
            let mut seen = lock(&seen);
            match response.frame {
                Some(Frame::Update(update)) => seen.arrivals[watcher].push((update.version, clock::wall())),
                Some(Frame::Snapshot(_)) => seen.watching += 1,
                _ => {}
            }
        }
    }
}

fn take_frame(buffer: &mut BytesMut) -> Option<Bytes> {
    let length = u32::from_be_bytes(buffer.get(1..5)?.try_into().ok()?) as usize;
    if buffer.len() < 5 + length {
        return None;
    }
    buffer.advance(5);
    Some(buffer.split_to(length).freeze())
}
