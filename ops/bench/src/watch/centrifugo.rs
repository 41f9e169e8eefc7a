//! Centrifugo with the same load: one channel, which everybody follows over HTTP/1.1 on a connection of their own.
use super::{
    Load, TIME, WARM_UP, all_know, all_watch,
    seen::{Lateness, Seen, Shared},
    streamed::Streamed,
    version_in,
};
use crate::{extent, waiting};
use anyhow::{Context, bail};
use bytes::BytesMut;
use chrono::{DateTime, Utc};
use gavel_runtime::clock;
use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const SUCCESS: &[u8] = b"HTTP/1.1 200";
const SUBSCRIBE: &[u8] = br#"{"subs":{"item":{}}}"#;

/// A running one. Killed when dropped.
struct Centrifugo {
    child: Child,
    address: String,
}

impl Drop for Centrifugo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Centrifugo {
    async fn start(program: &str, out: &str) -> anyhow::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
        let config = serde_json::json!({
            "http_server": { "address": "127.0.0.1", "port": port.to_string() },
            "http_api": { "key": "key" },
            "uni_http_stream": { "enabled": true },
            "client": { "insecure": true },
            "channel": { "without_namespace": { "allow_subscribe_for_client": true } },
            "log": { "level": "error" },
        });
        let path = Path::new(out).join("centrifugo.json");
        fs::write(&path, config.to_string())?;
        let child = Command::new(program).arg("--config").arg(&path).stdin(Stdio::null()).stdout(Stdio::null()).spawn();
        let started =
            Self { child: child.context("centrifugo can't be started")?, address: format!("127.0.0.1:{port}") };
        waiting::until("Centrifugo listens", || async { Ok(TcpStream::connect(&started.address).await.is_ok()) })
            .await?;
        Ok(started)
    }
}

/// Returns how late its publications come, from the moment at which each is handed over. `others_p99_ms` is asked
/// when everybody listens and when all was said, and given as it was then.
pub(super) async fn lateness(
    program: &str,
    out: &str,
    load: Load,
    others_p99_ms: impl Fn() -> anyhow::Result<f64>,
) -> anyhow::Result<(Lateness, f64)> {
    let server = Centrifugo::start(program, out).await?;
    let seen = Shared::default();
    all_watch(&seen, load.watchers, || watch(&server.address, seen.clone())).await?;
    let mut publisher = TcpStream::connect(&server.address).await?;
    publisher.set_nodelay(true)?;
    others_p99_ms()?;
    let mut tick = tokio::time::interval(load.every());
    let (from, mut made, mut version) = (clock::wall() + extent::time(WARM_UP), Vec::new(), 0);
    while clock::wall() < from + extent::time(TIME) {
        tick.tick().await;
        version += 1;
        let at = clock::wall();
        publish(&mut publisher, version).await?;
        if at >= from {
            made.push((version, at));
        }
    }
    let others = others_p99_ms()?;
    all_know(&seen, version, load.watchers).await?;
    let lateness = seen.borrow().lateness(&made);
    Ok((lateness, others))
}

/// An update as large as Gavel's in JSON.
async fn publish(publisher: &mut TcpStream, version: i64) -> anyhow::Result<()> {
    let update = format!(
        r#"{{"channel":"item","data":{{"update":{{"version":"{version}","priceMinor":"{}","nextMinimumMinor":"{}","leader":"bidder-0","bidCount":"{version}","status":"ITEM_STATUS_OPEN","endsAt":"2026-12-05T08:12:34Z"}}}}}}"#,
        version * 10_000,
        version * 10_000 + 500,
    );
    let length = update.len();
    let request = format!(
        "POST /api/publish HTTP/1.1\r\nhost: localhost\r\nx-api-key: key\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{update}"
    );
    publisher.write_all(request.as_bytes()).await?;
    let mut answer = BytesMut::with_capacity(512);
    // `{"result":{}}` is the last of it.
    while !answer.ends_with(b"}}") && !answer.ends_with(b"}}\n") {
        if publisher.read_buf(&mut answer).await? == 0 {
            bail!("Centrifugo hung up on its publisher: {}", String::from_utf8_lossy(&answer));
        }
        if answer.len() >= SUCCESS.len() && !answer.starts_with(SUCCESS) {
            bail!("Centrifugo refuses to publish: {}", String::from_utf8_lossy(&answer));
        }
    }
    if answer.windows(7).any(|bytes| bytes == b"\"error\"") {
        bail!("Centrifugo refuses to publish: {}", String::from_utf8_lossy(&answer));
    }
    Ok(())
}

async fn watch(address: &str, seen: Shared) -> anyhow::Result<()> {
    let path = "/connection/uni_http_stream";
    let mut stream =
        Streamed::post(TcpStream::connect(address).await?, path, "application/json", "", SUBSCRIBE).await?;
    let watcher = seen.borrow_mut().join();
    tokio::task::spawn_local(async move {
        let mut body = BytesMut::new();
        let mut is_first = true;
        while stream.read(&mut body).await.unwrap_or(false) {
            let at = clock::wall();
            while let Some(end) = body.iter().position(|byte| *byte == b'\n') {
                hear(&body.split_to(end + 1), &mut seen.borrow_mut(), (watcher, at), &mut is_first);
            }
        }
    });
    Ok(())
}

/// The first line is the greeting.
fn hear(line: &[u8], seen: &mut Seen, (watcher, at): (usize, DateTime<Utc>), is_first: &mut bool) {
    seen.watching += usize::from(std::mem::take(is_first));
    if let Some(version) = version_in(line) {
        seen.came(watcher, version, at);
    }
}
