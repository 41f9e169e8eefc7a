//! Serves the API: gRPC, gRPC-Web and Connect to the public; operators, metrics and the autoscaler on a listener of
//! their own.
use clap::Parser;
use gavel_runtime::{
    config::{Backends, Env, ProcessConfig, TokenConfig},
    process,
};
use std::process::ExitCode;

/// Gavel's API server. To the public: ItemService, BidService, UserService as gRPC, gRPC-Web and Connect over HTTP/1.1
/// and h2c, and GET /items/ID as JSON. To operators, on a listener of their own: OpsService, what KEDA asks,
/// reflection, /metrics. Both answer /healthz and /readyz. Stateless: run as many as you like. SIGTERM drains it.
#[derive(Parser)]
#[command(name = "bid-service", version, after_help = HELP)]
struct Arguments {}

pub(crate) const HELP: &str = "\
Configuration comes from the environment. Secrets may come from files: NAME_FILE instead of NAME.

  DATABASE_URL            postgres://user:password@host/gavel            required
  GAVEL_READ_URL          the same of a standby: lists and statistics are read there  none
  GAVEL_READ_STALENESS_MS  not while what it shows may be older          2000
  AMQP_URL                amqp://user:password@host/vhost                required
  REDIS_URL               redis://host                                   required
  GAVEL_BACKEND_CACERT    a file, PEM: authorities behind amqps and rediss
  GAVEL_JWT_PUBLIC_KEY    public keys, PEM, Ed25519 or RSA               required, or:
  GAVEL_JWKS              a JWKS document: a path or an https URL
  GAVEL_JWKS_CA_FILE      PEM: certificates that the URL's server may have
  GAVEL_JWKS_MAX_AGE_S    keys that can't be read again count so long    86400
  GAVEL_JWT_ISSUER        the issuer tokens must name                    gavel
  GAVEL_JWT_AUDIENCE      the audience tokens must name                  gavel
  GAVEL_JWT_MAX_LIFETIME_S  a token valid for longer is refused          86400
  GAVEL_LISTEN            address and port of the public's calls         0.0.0.0:8080
  GAVEL_OPS_LISTEN        the same for operators; no gateway leads here  127.0.0.1:8081
  GAVEL_TRUSTED_PROXIES   gateways whose X-Forwarded-For is believed     none
  GAVEL_POOL_SIZE         connections for calls that change something    16
  GAVEL_READ_POOL_SIZE    connections for reads                          8
  GAVEL_CALLS_PER_CALLER  changes a second of one caller, 0 for any      100
  GAVEL_CALLS_PER_KEY     bids a second on one item, 0 for any           0
  GAVEL_READS_PER_CALLER  reads a second of one caller, 0 for any        200
  GAVEL_READS_PER_ADDRESS  the same without a token, from one address    200
  GAVEL_STREAMS_PER_CALLER  streams of one caller at once, 0 for any     100
  GAVEL_STREAMS_PER_ADDRESS  the same without a token, from one address  500
  GAVEL_CONNECTIONS       connections at the same time                   10000
  GAVEL_CONNECTIONS_PER_ADDRESS  from one address, 0 for any             1000
  GAVEL_BODY_BYTES        of requests held at the same time              33554432
  GAVEL_BODY_TIMEOUT_MS   a request's body is there by then              10000
  GAVEL_GREETING_TIMEOUT_MS  a connection that says nothing so long is closed  10000
  GAVEL_HEADERS_TIMEOUT_MS   HTTP/1.1: from one request to the next one's headers  120000
  GAVEL_PING_MS           HTTP/2: a silent peer is asked after, and has, so long  20000
  GAVEL_IDLE_TIMEOUT_MS   a connection that asks for nothing is closed   300000
  GAVEL_HEARTBEAT_MS      streams say so often that they are alive       10000
  GAVEL_STREAM_PATIENCE_MS  a client that takes nothing so long is dropped  30000
  GAVEL_CORS_ORIGINS      origins whose web pages may call               none
  GAVEL_DEV_LOGIN         true: POST /dev/login gives tokens to anybody;
                          only where both addresses are loopback         false
  GAVEL_JWT_SIGNING_KEY   the private key for that, Ed25519, PEM
  GAVEL_CACHE_PREFIX      put before every Redis key                     gavel
  GAVEL_LEASE_MS          a transaction that is idle for so long is ended  15000
  GAVEL_GRACE_MS          how long a drain may take                      20000
  GAVEL_DRAIN_DELAY_MS    readiness is off this long before closing      0
  OTEL_EXPORTER_OTLP_ENDPOINT  traces go there, OTLP over HTTP           none
  OTEL_EXPORTER_OTLP_HEADERS  are sent along: name=value,…
  OTEL_TRACES_SAMPLER_ARG the share of traces that is kept, 0 to 1       1
  RUST_LOG                what is logged, such as info or warn,gavel=debug

It refuses to start against a schema older than it needs: run `bidctl migrate` first. The broker and the cache may be
down: bids are taken all the same, events wait in the outbox, reads go to the database.";

#[tokio::main]
pub(crate) async fn main() -> ExitCode {
    process::exit("bid-service", run().await)
}

async fn run() -> anyhow::Result<()> {
    Arguments::parse();
    let mut env = Env::from_process();
    let backends = Backends::from_env(&mut env);
    let unlisted = env.unlisted(&crate::LISTS);
    let config = ProcessConfig { unlisted, ..ProcessConfig::of_service(&mut env) };
    let tokens = TokenConfig::from_env(&mut env, &config);
    env.finish()?;
    process::run_service(gavel::app(), "bid-service", &backends, &config, &tokens).await
}
