//! Serves the API: gRPC, gRPC-Web and Connect, health and metrics, on one port.
use clap::Parser;
use gavel_runtime::{
    config::{Backends, Env, ProcessConfig, TokenConfig},
    process,
};
use mimalloc::MiMalloc;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Gavel's API server: gRPC, gRPC-Web and Connect over HTTP/1.1 and h2c (ItemService, BidService, UserService, OpsService, and
/// what KEDA asks), GET /items/ID as JSON, /healthz, /readyz and /metrics, all on one port. Stateless: run as many as you like. SIGTERM drains it.
#[derive(Parser)]
#[command(version, after_help = HELP)]
struct Arguments {}

const HELP: &str = "\
Configuration comes from the environment. Secrets may come from files: NAME_FILE instead of NAME.

  DATABASE_URL            postgres://user:password@host/gavel            required
  AMQP_URL                amqp://user:password@host/vhost                required
  REDIS_URL               redis://host                                   required
  GAVEL_JWT_PUBLIC_KEY    public keys, PEM, Ed25519 or RSA               required, or:
  GAVEL_JWKS              a JWKS document: a path or an http(s) URL
  GAVEL_JWT_ISSUER        the issuer tokens must name                    gavel
  GAVEL_JWT_AUDIENCE      the audience tokens must name                  gavel
  GAVEL_LISTEN            address and port                               0.0.0.0:8080
  GAVEL_POOL_SIZE         connections for calls that change something    16
  GAVEL_READ_POOL_SIZE    connections for reads                          8
  GAVEL_CALLS_PER_CALLER  changes a second of one caller, 0 for any    100
  GAVEL_CALLS_PER_KEY     bids a second on one item, 0 for any           0
  GAVEL_CONNECTIONS       connections at the same time                   10000
  GAVEL_GREETING_TIMEOUT_MS  a connection that says nothing so long is closed  10000
  GAVEL_HEADERS_TIMEOUT_MS   HTTP/1.1: from one request to the next one's headers  120000
  GAVEL_PING_MS           HTTP/2: a silent peer is asked after, and has, so long  20000
  GAVEL_IDLE_TIMEOUT_MS   a connection that asks for nothing is closed   300000
  GAVEL_HEARTBEAT_MS      streams say so often that they are alive       10000
  GAVEL_STREAM_PATIENCE_MS  a client that takes nothing so long is dropped  30000
  GAVEL_CORS_ORIGINS      origins whose web pages may call               none
  GAVEL_DEV_LOGIN         true: POST /dev/login gives tokens to anybody  false
  GAVEL_JWT_SIGNING_KEY   the private key for that, Ed25519, PEM
  GAVEL_CACHE_PREFIX      put before every Redis key                     gavel
  GAVEL_GRACE_MS          how long a drain may take                      20000
  GAVEL_DRAIN_DELAY_MS    readiness is off this long before closing      0
  RUST_LOG                what is logged, such as info or warn,gavel=debug

It refuses to start against a schema older than it needs: run `bidctl migrate` first. The broker and the cache may be
down: bids are taken all the same, events wait in the outbox, reads go to the database.";

#[tokio::main]
async fn main() -> ExitCode {
    process::exit("bid-service", run().await)
}

async fn run() -> anyhow::Result<()> {
    Arguments::parse();
    let mut env = Env::from_process();
    let backends = Backends::from_env(&mut env);
    let config = ProcessConfig::from_env(&mut env, ([0, 0, 0, 0], 8080).into());
    let tokens = TokenConfig::from_env(&mut env);
    env.finish()?;
    process::run_service(gavel::app(), "bid-service", &backends, &config, &tokens).await
}
