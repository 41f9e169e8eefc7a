//! Watchers that stop reading, as a laptop does that is closed; and as many that read, beside them.
use super::{all_watch, ask, seen::Shared, start, watch};
use crate::{
    bids::{
        Bench,
        load::{self, Lots},
        service::Process,
    },
    extent,
    report::{Row, at_most, below},
};
use futures_util::future::try_join_all;
use std::{net::SocketAddr, time::Duration};
use tokio::{
    net::{TcpSocket, TcpStream},
    task::LocalSet,
};

const WATCHERS: u32 = 1_000;
const EVERY: Duration = Duration::from_millis(20);
const TIME: Duration = Duration::from_secs(20);
/// What their side takes before it is full, in bytes: Linux doubles it, and gives no less.
const RECEIVE_BYTES: u32 = 4_096;
/// Of the memory with as many that read.
const MEMORY_RATIO: f64 = 1.1;

/// Memory of the service, in MiB.
struct Memory {
    watched: f64,
    at_most: f64,
}

pub(crate) async fn run(bench: &Bench<'_>) -> anyhow::Result<Vec<Row>> {
    let reading = LocalSet::new().run_until(reading(bench)).await?;
    let stalled = stalled(bench).await?;
    let work = format!("{} watchers that stopped reading", extent::count(WATCHERS));
    let beside = ("as many that read", reading.at_most);
    Ok(vec![
        at_most(&format!("memory of the service at most, {work}"), "MiB", stalled.at_most, beside, MEMORY_RATIO),
        below(&format!("more memory than before they stopped, {work}"), "MiB", stalled.at_most - stalled.watched, 16.0),
    ])
}

async fn reading(bench: &Bench<'_>) -> anyhow::Result<Memory> {
    let (service, _relay) = begin(bench).await?;
    let (seen, token) = (Shared::default(), bench.releases.token("watcher")?);
    let count = usize::try_from(extent::count(WATCHERS))?;
    all_watch(&seen, count, || watch(&service.address, &token, seen.clone())).await?;
    told(bench, &service).await
}

async fn stalled(bench: &Bench<'_>) -> anyhow::Result<Memory> {
    let (service, _relay) = begin(bench).await?;
    let token = bench.releases.token("watcher")?;
    let address: SocketAddr = service.address.parse()?;
    let asked = (0..extent::count(WATCHERS)).map(|_| async { ask(narrow(address).await?, &token).await });
    // Held, and never read.
    let _held = try_join_all(asked).await?;
    told(bench, &service).await
}

async fn narrow(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(RECEIVE_BYTES)?;
    Ok(socket.connect(address).await?)
}

async fn begin(bench: &Bench<'_>) -> anyhow::Result<(Process, Process)> {
    bench.stage(1).await?.close().await;
    eprintln!("  … {} watchers", extent::count(WATCHERS));
    Ok((start(bench, "bid-service", &[]).await?, start(bench, "bid-worker", &["--only", "relay_outbox"]).await?))
}

/// There is something new again and again.
async fn told(bench: &Bench<'_>, service: &Process) -> anyhow::Result<Memory> {
    let (watched, _) = service.memory()?;
    let bidder = load::connect(&bench.releases, &service.address, 1).await?.remove(0);
    let (lots, mut tick) = (Lots::new(1), tokio::time::interval(EVERY));
    for _ in 0..extent::time(TIME).as_millis() / EVERY.as_millis() {
        tick.tick().await;
        let (item, amount) = lots.next();
        bidder.bid(&item, amount).await?;
    }
    Ok(Memory { watched, at_most: service.memory()?.1 })
}
