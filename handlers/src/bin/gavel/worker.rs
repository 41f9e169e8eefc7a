//! Runs the jobs, consumers, schedules and the outbox relay.
use clap::Parser;
use gavel_runtime::{
    app::Chosen,
    config::{Backends, Env, ProcessConfig},
    process,
};
use std::process::ExitCode;

/// Gavel's worker: relays the outbox to RabbitMQ, applies events to user statistics and the read model, closes
/// auctions, sweeps old receipts. Run as many as you like: they share the work. SIGTERM drains it.
#[derive(Parser)]
#[command(name = "bid-worker", version, after_help = HELP)]
struct Arguments {
    /// Run only these handlers, separated by commas
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    only: Vec<String>,
    /// Run these as well, which run only in a worker that is started for them
    #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
    also: Vec<String>,
    /// List the handlers a worker can run, and exit
    #[arg(long)]
    list: bool,
}

pub(crate) const HELP: &str = "\
Configuration comes from the environment. Secrets may come from files: NAME_FILE instead of NAME.

  DATABASE_URL            postgres://user:password@host/gavel            required
  AMQP_URL                amqp://user:password@host/vhost                required
  REDIS_URL               redis://host                                   required
  GAVEL_BACKEND_CACERT    a file, PEM: authorities behind amqps and rediss
  GAVEL_OPS_LISTEN        address and port of health and metrics         127.0.0.1:8081
  GAVEL_JOB_POOL_SIZE     connections for jobs, messages, schedules      16
  GAVEL_RELAY_POOL_SIZE   connections for the outbox relay               4
  GAVEL_READ_POOL_SIZE    connections for reads                          8
  GAVEL_LEASE_MS          how long a silent worker keeps its jobs        15000
  GAVEL_GREETING_TIMEOUT_MS, GAVEL_HEADERS_TIMEOUT_MS, GAVEL_PING_MS, GAVEL_IDLE_TIMEOUT_MS
                          of that port, as of bid-service
  GAVEL_CONNECTIONS, GAVEL_CONNECTIONS_PER_ADDRESS, GAVEL_TRUSTED_PROXIES
                          likewise
  GAVEL_CACHE_PREFIX      put before every Redis key                     gavel
  GAVEL_GRACE_MS          how long a drain may take                      20000
  GAVEL_DRAIN_DELAY_MS    readiness is off this long before stopping     0
  OTEL_EXPORTER_OTLP_ENDPOINT  traces go there, OTLP over HTTP           none
  OTEL_EXPORTER_OTLP_HEADERS  are sent along: name=value,…
  OTEL_TRACES_SAMPLER_ARG the share of traces that is kept, 0 to 1       1
  RUST_LOG                what is logged, such as info or warn,gavel=debug

Examples:
  bid-worker
  bid-worker --only relay_outbox
  bid-worker --only apply_user_stats,project_item
  bid-worker --only run_backfill_chunk,run_online_step     as the owner of the tables, while the schema changes";

#[tokio::main]
pub(crate) async fn main() -> ExitCode {
    process::exit("bid-worker", run().await)
}

async fn run() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let app = gavel::app();
    if arguments.list {
        for handler in app.registrations().iter().filter(|handler| handler.spec.trigger.is_workers()) {
            println!("{:<20} {}", handler.spec.name, handler.spec);
        }
        return Ok(());
    }
    let chosen = Chosen { only: arguments.only, also: arguments.also };
    let mut env = Env::from_process();
    let backends = Backends::from_env(&mut env);
    let unlisted = env.unlisted(&crate::LISTS);
    let config = ProcessConfig { unlisted, ..ProcessConfig::of_worker(&mut env) };
    env.finish()?;
    process::run_worker(app, "bid-worker", &backends, &config, &chosen).await
}
