//! The edge beside bare poem-grpc: the same method with the same answer, in a process of its own each, and how many
//! calls it takes for a second of its processors' time.
mod served;

pub(crate) use served::serve;

use crate::{
    bids::{Bench, client::framed, service::Process},
    extent,
    report::{Row, beside, median},
};
use anyhow::{Context, ensure};
use bytes::Bytes;
use futures_util::future::try_join_all;
use gavel_proto::externalscaler::ScaledObjectRef;
use h2::client::SendRequest;
use http::{Request, StatusCode, header::CONTENT_TYPE};
use prost::Message;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

const CLIENTS: usize = 64;
/// Turns that each has in a round: whatever else the machine does meets all of them.
const TURNS: usize = 5;
const WARM_UP: Duration = Duration::from_millis(200);
const TIME: Duration = Duration::from_millis(900);
const METHOD: &str = "externalscaler.ExternalScaler/IsActive";

/// A protocol and codec, and the part of the baseline's calls that it must reach.
#[derive(Clone, Copy)]
struct Protocol {
    name: &'static str,
    content_type: &'static str,
    goal: f64,
}

const GRPC: Protocol = Protocol { name: "gRPC", content_type: "application/grpc", goal: 0.85 };
const PROTOCOLS: [Protocol; 4] = [
    GRPC,
    Protocol { name: "gRPC-Web", content_type: "application/grpc-web+proto", goal: 0.0 },
    Protocol { name: "Connect, protobuf", content_type: "application/proto", goal: 0.85 },
    Protocol { name: "Connect, JSON", content_type: "application/json", goal: 0.6 },
];

impl Protocol {
    fn body(self) -> anyhow::Result<Bytes> {
        let asked = ScaledObjectRef {
            name: "bid-worker".to_owned(),
            namespace: "gavel".to_owned(),
            scaler_metadata: [("queue".to_owned(), "close_item".to_owned())].into(),
        };
        Ok(match self.content_type {
            "application/json" => serde_json::to_vec(&serde_json::json!({
                "name": asked.name, "namespace": asked.namespace, "scalerMetadata": asked.scaler_metadata,
            }))?
            .into(),
            "application/proto" => asked.encode_to_vec().into(),
            _ => framed(&asked.encode_to_vec())?,
        })
    }
}

pub(crate) async fn run(bench: &Bench<'_>, rounds: usize) -> anyhow::Result<Vec<Row>> {
    bench.stage(1).await?.close().await;
    let mut bare = Vec::new();
    let mut ours = PROTOCOLS.map(|_| Vec::new());
    for number in 1..=rounds {
        eprintln!("  … round {number} of {rounds}");
        let (theirs, own) = (Server::start(bench, "bare").await?, Server::start(bench, "ours").await?);
        for _ in 0..extent::some(&[(); TURNS]).len() {
            bare.push(theirs.per_cpu_second(GRPC).await?);
            for (protocol, figures) in PROTOCOLS.iter().zip(&mut ours) {
                figures.push(own.per_cpu_second(*protocol).await?);
            }
        }
    }
    let bare = median(bare);
    let row = |(protocol, figures): (Protocol, Vec<f64>)| {
        let work = format!("unary calls, {}", protocol.name);
        beside(&work, "calls/CPU-second", median(figures), ("bare poem-grpc", bare), protocol.goal)
    };
    Ok(PROTOCOLS.into_iter().zip(ours).map(row).collect())
}

/// One of the two, and the connections to it.
struct Server {
    process: Process,
    clients: Vec<SendRequest<Bytes>>,
}

impl Server {
    async fn start(bench: &Bench<'_>, which: &str) -> anyhow::Result<Self> {
        let url = bench.url();
        let variables = [
            ("DATABASE_URL", url.as_str()),
            ("AMQP_URL", "amqp://127.0.0.1:1"),
            ("REDIS_URL", "redis://127.0.0.1:1"),
            // Neither writes a line for each call.
            ("RUST_LOG", "warn,gavel_runtime::process=info"),
        ];
        let process = bench.releases.start("gavel-bench", &["edge-server", which], &variables).await?;
        let clients = try_join_all((0..CLIENTS).map(|_| connect(&process.address))).await?;
        Ok(Self { process, clients })
    }

    async fn per_cpu_second(&self, protocol: Protocol) -> anyhow::Result<f64> {
        let body = protocol.body()?;
        let uri = format!("http://{}/{METHOD}", self.process.address);
        let (from, until) = (Instant::now() + WARM_UP, Instant::now() + WARM_UP + extent::time(TIME));
        let calls = try_join_all(self.clients.iter().map(|client| {
            let (uri, body) = (&uri, &body);
            async move {
                let mut calls = 0_u32;
                while Instant::now() < until {
                    call(client, uri, protocol, body).await?;
                    calls += u32::from(Instant::now() > from);
                }
                anyhow::Ok(calls)
            }
        }));
        let processor = async {
            tokio::time::sleep_until(from.into()).await;
            let before = self.process.processor_seconds()?;
            tokio::time::sleep_until(until.into()).await;
            Ok(self.process.processor_seconds()? - before)
        };
        let (calls, seconds) = tokio::try_join!(calls, processor)?;
        Ok(f64::from(calls.iter().sum::<u32>()) / seconds)
    }
}

#[expect(clippy::disallowed_methods, reason = "the connection ends with the server")]
async fn connect(address: &str) -> anyhow::Result<SendRequest<Bytes>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (send, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(connection);
    Ok(send)
}

async fn call(client: &SendRequest<Bytes>, uri: &str, protocol: Protocol, body: &Bytes) -> anyhow::Result<()> {
    let request = Request::post(uri).header(CONTENT_TYPE, protocol.content_type).header("te", "trailers").body(())?;
    let mut send = client.clone().ready().await?;
    let (response, mut sending) = send.send_request(request, false)?;
    sending.send_data(body.clone(), true)?;
    let (head, mut reply) = response.await?.into_parts();
    ensure!(head.status == StatusCode::OK, "{} answered {}", protocol.name, head.status);
    let mut length = 0;
    while let Some(chunk) = reply.data().await {
        let chunk = chunk?;
        length += chunk.len();
        reply.flow_control().release_capacity(chunk.len())?;
    }
    ensure!(length > 0, "{} answered nothing", protocol.name);
    if protocol.content_type == GRPC.content_type {
        let trailers = reply.trailers().await?.context("no trailers")?;
        ensure!(trailers.get("grpc-status").is_some_and(|status| status == "0"), "the call failed: {trailers:?}");
    }
    Ok(())
}
