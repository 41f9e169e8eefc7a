//! The operator's tool, and the quickest way to try Gavel by hand.

mod accounts;
mod backfill;
mod bid;
mod checkout;
mod client;
mod dead;
mod doctor;
mod duration;
mod handlers;
mod healthcheck;
mod identity;
mod item;
mod jobs;
mod lint;
mod migrate;
mod minor;
mod names;
mod ops;
mod output;
mod parked;
mod prepare;
mod queue;
mod rebuild;
mod refused;
mod schema;
mod settings;
mod stats;
mod table;
mod top;
mod user;
mod watch;
mod why;

pub(crate) use settings::VARIABLES;

use clap::{CommandFactory, Parser, Subcommand};
use gavel_runtime::tls;
use output::Output;
use settings::{Global, Settings};
use std::process::ExitCode;

/// Gavel from the command line: publish items, bid, look, migrate, operate queues, mint development tokens.
#[derive(Parser)]
#[command(name = "bidctl", version, after_help = HELP)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Mint a bearer token with the development key
    Token(identity::Token),
    /// Make an Ed25519 key pair for tokens
    Keygen(identity::Keygen),
    /// Make passwords for a new installation's servers and programs
    Accounts(accounts::Accounts),
    /// Make the database and its roles, as an administrator
    Prepare(prepare::Prepare),
    /// Apply the migrations the database lacks
    Migrate(migrate::Migrate),
    /// Change the schema while everybody works: look, backfill, contract, revert, drop
    #[command(subcommand)]
    Schema(schema::Schema),
    /// Publish, list or show items
    #[command(subcommand)]
    Item(item::Item),
    /// Place a bid
    Bid(bid::PlaceBid),
    /// Show what a user has bid, won and spent
    Stats(stats::Stats),
    /// What concerns a user, as it happens
    #[command(subcommand)]
    User(user::User),
    /// Look at queues, pause and resume them, look at jobs, cancel them (role ops)
    #[command(subcommand)]
    Queue(queue::Queue),
    /// List, retry or discard jobs that failed for good (role ops)
    #[command(subcommand)]
    Dead(dead::Dead),
    /// List, retry or discard messages that no try could handle (role ops)
    #[command(subcommand)]
    Parked(parked::Parked),
    /// List everything the application does (role ops)
    Handlers,
    /// Make anew what follows from the items and their bids
    #[command(subcommand)]
    Rebuild(rebuild::Rebuild),
    /// Ask a process whether it is alive: for a container's health check
    Healthcheck,
    /// Show what is going on, figure by figure, until Ctrl-C
    Top(top::Top),
    /// Look at every dependency and every backlog; fails when something is wrong
    Doctor,
    /// Print a script that completes commands in a shell, such as `source <(bidctl completions bash)`
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

const HELP: &str = "\
Settings come from flags, then from the environment, then, inside the checkout that this program was built in, from its
.gavel/dev.env, which `cargo xtask up` writes. Secrets may come from files: NAME_FILE instead of NAME.

  GAVEL_URL               where bid-service listens          http://127.0.0.1:8080
  GAVEL_OPS_URL           where it listens to operators      http://127.0.0.1:8081
  GAVEL_PROCESSES         operators' addresses of all, for top, separated by commas
  GAVEL_CACERT            a file, PEM: authorities behind https
  GAVEL_TOKEN             the bearer token to call with
  GAVEL_JWT_SIGNING_KEY   Ed25519 private key, PEM           for token and --user
  GAVEL_JWT_ISSUER, GAVEL_JWT_AUDIENCE                       gavel
  DATABASE_URL            PostgreSQL        for doctor; as its owner, for migrate, schema and rebuild stats; for prepare, as an administrator
  AMQP_URL, REDIS_URL     RabbitMQ and Redis                 for doctor and rebuild stats
  GAVEL_BACKEND_CACERT    a file, PEM: authorities behind amqps and rediss

Examples:
  bidctl item create --user sam --title 'A brass lamp' --start-price-minor 1000 --ends-in 10m
  bidctl item list
  bidctl bid --user alice 0192f0c1-… 1500
  bidctl stats --user alice
  bidctl token --user alice --role bidder --role seller
  bidctl queue list --user olga --watch
  bidctl dead retry --user olga --kind close_item
  bidctl doctor";

#[tokio::main]
pub(crate) async fn main() -> ExitCode {
    tls::choose_provider();
    let Arguments { global, command } = Arguments::parse();
    let output = Output { json: global.json, compact: false };
    match run(global, command, output).await {
        Ok(code) => code,
        Err(error) => {
            output.error(&error);
            ExitCode::FAILURE
        }
    }
}

async fn run(global: Global, command: Command, output: Output) -> anyhow::Result<ExitCode> {
    if let Command::Completions { shell } = command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Arguments::command(), "bidctl", &mut script);
        output::line(format_args!("{}", String::from_utf8(script)?));
        return Ok(ExitCode::SUCCESS);
    }
    let settings = Settings::load(global)?;
    match command {
        Command::Token(token) => token.run(&settings, output)?,
        Command::Keygen(keygen) => keygen.run(output)?,
        Command::Accounts(accounts) => accounts.run(output)?,
        Command::Prepare(prepare) => prepare.run(&settings, output).await?,
        Command::Migrate(migrate) => migrate.run(&settings, output).await?,
        Command::Schema(schema) => schema.run(&settings, output).await?,
        Command::Item(item) => item.run(&settings, output).await?,
        Command::Bid(bid) => bid.run(&settings, output).await?,
        Command::User(user) => user.run(&settings, output).await?,
        Command::Stats(stats) => stats.run(&settings, output).await?,
        Command::Queue(queue) => queue.run(&settings, output).await?,
        Command::Dead(dead) => dead.run(&settings, output).await?,
        Command::Parked(parked) => parked.run(&settings, output).await?,
        Command::Rebuild(rebuild) => rebuild.run(&settings, output).await?,
        Command::Handlers => handlers::run(&settings, output).await?,
        Command::Top(top) => top.run(&settings, output).await?,
        Command::Healthcheck => healthcheck::run(&settings, output).await?,
        Command::Doctor => return doctor::run(&settings, output).await,
        Command::Completions { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}
