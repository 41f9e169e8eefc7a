//! A whole Gavel for one test.
use crate::{
    Api, Process,
    accounts::{self, Account},
    answers::Protocol,
    broker::Broker,
    eventually, levers,
    process::binary,
    proxy::Proxy,
    servers::{Servers, host_of},
};
use chrono::Utc;
use gavel_accounts::postgres::{OWNER, Role};
use gavel_runtime::{
    auth::{self, Claims},
    boundary::planted,
};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{Connection, Executor, PgConnection, PgPool, postgres::PgPoolOptions};
use std::path::PathBuf;
use uuid::Uuid;

/// The queues of the consuming handlers.
pub const CONSUMER_QUEUES: [&str; 2] = ["gavel.apply_user_stats", "gavel.project_item"];

/// So that a table soon needs more room, however little is written.
const FEW_ROWS_TO_A_PAGE: &str = "DO $$ DECLARE t regclass; BEGIN
    FOR t IN SELECT oid FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace LOOP
        EXECUTE format('ALTER TABLE %s SET (fillfactor = 10)', t); END LOOP; END $$";

/// What a test wants to be different.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// The processes reach PostgreSQL, RabbitMQ and Redis through wires that can be cut.
    pub proxied: bool,
    /// Its database lies on the disk that may be filled, where there is one; nobody else's does.
    pub small_disk: bool,
    /// What is acknowledged is written by then, as in production: the servers of tests are quick and forgetful.
    pub durable: bool,
}

/// A database, a vhost, a key prefix and a signing key of its own.
pub struct System {
    /// The test's own connections to the database.
    pub db: PgPool,
    /// The test's own URL of the vhost.
    pub amqp_url: String,
    /// The wire to PostgreSQL, where asked for.
    pub database_wire: Option<Proxy>,
    /// The wire to RabbitMQ, where asked for.
    pub broker_wire: Option<Proxy>,
    /// The wire to Redis, where asked for.
    pub cache_wire: Option<Proxy>,
    name: String,
    key: SecretString,
    variables: Vec<(String, String)>,
    service_variables: Vec<(String, String)>,
    database_urls: [(Role, String); 5],
    administrator_url: String,
}

impl System {
    /// With everything as usual.
    pub async fn new() -> Self {
        Self::with(Options::default()).await
    }

    /// With wires that can be cut.
    pub async fn proxied() -> Self {
        Self::with(Options { proxied: true, ..Options::default() }).await
    }

    /// With something different.
    pub async fn with(options: Options) -> Self {
        let servers = Servers::of_this_run();
        let name = format!("gavel_test_{}", Uuid::new_v4().simple());
        let small_disk = options.small_disk && servers.small_disk.is_some();
        if small_disk {
            levers::at_once(levers::clear_small_disk).await;
        }
        clone_database(&servers, &name, small_disk.then_some(levers::TABLESPACE)).await;
        make_vhost(&servers, &name).await;
        let wired = async |url: &str, port| if options.proxied { Some(wire(url, port).await) } else { None };
        let (database_wire, broker_wire, cache_wire) =
            (wired(&servers.postgres, 5432).await, wired(&servers.amqp, 5672).await, wired(&servers.redis, 6379).await);
        let through = |url: &str, wire: &Option<Proxy>| match wire {
            Some(wire) => url.replace(&host_of(url), &wire.address.to_string()),
            None => url.to_owned(),
        };
        let [service, worker] = accounts::make(&servers, &name).await;
        let database = |role| through(&accounts::database_url(&servers, role, &name), &database_wire);
        let urls = |Account { amqp_url, redis_url }: &Account, role| {
            let urls = [
                ("DATABASE_URL", database(role)),
                ("AMQP_URL", through(amqp_url, &broker_wire)),
                ("REDIS_URL", through(redis_url, &cache_wire)),
            ];
            urls.map(|(name, value)| (name.to_owned(), value))
        };
        let (service, worker) = (urls(&service, Role::Service), urls(&worker, Role::Worker));
        let database_urls = Role::ALL.map(|role| (role, database(role)));
        let database_url = format!("{}/{name}", servers.postgres);
        let (key, public_key) = keys(&name);
        let variables = [
            ("GAVEL_CACHE_PREFIX", name.clone()),
            ("GAVEL_JWT_PUBLIC_KEY", public_key),
            ("GAVEL_LISTEN", "127.0.0.1:0".to_owned()),
            ("GAVEL_OPS_LISTEN", "127.0.0.1:0".to_owned()),
            // Of a panic in a test: finding its symbols takes a busy machine seconds, which are the others' deadline.
            ("RUST_BACKTRACE", "0".to_owned()),
        ];
        let system = Self {
            db: PgPoolOptions::new().max_connections(4).connect(&database_url).await.expect("the database answers"),
            amqp_url: format!("{}/{name}", servers.amqp),
            database_wire,
            broker_wire,
            cache_wire,
            name,
            key,
            variables: variables
                .map(|(name, value)| (name.to_owned(), value))
                .into_iter()
                .chain(worker)
                .chain(planted())
                .collect(),
            service_variables: service.into(),
            database_urls,
            administrator_url: database_url,
        };
        system.furnish(&servers, options.durable).await;
        system
    }

    /// Makes its database what a test finds.
    async fn furnish(&self, servers: &Servers, is_durable: bool) {
        // A test's own tables are open to the programs that it starts.
        for what in ["TABLES", "SEQUENCES"] {
            let open = format!("ALTER DEFAULT PRIVILEGES GRANT ALL ON {what} TO gavel_services, gavel_workers");
            self.run(&open).await;
        }
        if servers.is_expanded {
            self.expand_anew().await;
        }
        if is_durable {
            self.run(&format!("ALTER DATABASE {} SET synchronous_commit = on", self.name)).await;
        }
    }

    /// Takes its database and its vhost away, for runs of hundreds of systems: a broker that is started again starts one
    /// vhost after the other.
    pub async fn leave(self) {
        let servers = Servers::of_this_run();
        self.db.close().await;
        let mut admin = administrator(&servers).await;
        let drop = format!("DROP DATABASE {} WITH (FORCE)", self.name);
        admin.execute(drop.as_str()).await.expect("the database is dropped");
        drop_vhost(&servers, &self.name).await;
    }

    /// The variables that its workers and operators run with, and these in addition.
    pub fn variables(&self, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let kept = self.variables.iter().filter(|(name, _)| !more.clone().any(|(other, _)| other == *name));
        kept.cloned().chain(more.clone()).collect()
    }

    /// The variables that its services run with, and these in addition.
    pub fn service_variables(&self, more: &[(&str, &str)]) -> Vec<(String, String)> {
        let own = self.service_variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let own = own.filter(|(name, _)| !more.iter().any(|(other, _)| other == name));
        self.variables(&own.chain(more.iter().copied()).collect::<Vec<_>>())
    }

    /// A service, and a client of it.
    pub async fn service(&self) -> (Process, Api) {
        self.service_with(&[]).await
    }

    /// A service with variables in addition.
    pub async fn service_with(&self, variables: &[(&str, &str)]) -> (Process, Api) {
        let process = self.start_service(variables);
        let api = Api::of(&process).await;
        (process, api)
    }

    /// As [`System::service_with`], without waiting: for a service that is meant to die.
    pub fn start_service(&self, variables: &[(&str, &str)]) -> Process {
        Process::start(&binary("bid-service"), &[], &self.service_variables(variables))
    }

    /// A worker that runs everything.
    pub async fn worker(&self) -> Process {
        self.worker_with(&[], &[]).await
    }

    /// A worker with arguments and variables in addition.
    pub async fn worker_with(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Process {
        let process = self.start_worker(arguments, variables);
        process.ops_address().await;
        process
    }

    /// As [`System::worker_with`], without waiting: for a worker that is meant to die.
    pub fn start_worker(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Process {
        // Who fills rows does it as the owner of the tables.
        let fills = arguments.iter().any(|argument| argument.contains("run_backfill_chunk"));
        let owner = [("DATABASE_URL", self.database_url(Role::Migrator))];
        let own = owner.iter().filter(|(name, _)| fills && !variables.iter().any(|(other, _)| other == name));
        Process::start(
            &binary("bid-worker"),
            arguments,
            &self.variables(&own.chain(variables).copied().collect::<Vec<_>>()),
        )
    }

    /// From now on few rows have room in a page: a disk that is full is felt by whoever writes.
    pub async fn spread_rows(&self) {
        self.run(FEW_ROWS_TO_A_PAGE).await;
    }

    /// Runs workers until one finds nothing to do: then every message has been handled and acknowledged, however many
    /// deaths it took.
    pub async fn consume_everything(&self, broker: &Broker) {
        loop {
            let mut worker = self.worker().await;
            let depths = || async { [broker.depth(CONSUMER_QUEUES[0]).await, broker.depth(CONSUMER_QUEUES[1]).await] };
            eventually("no message waits", depths, |depths| depths.iter().all(|depth| *depth == (0, 1))).await;
            worker.terminate();
            assert_eq!(worker.ended().await.code(), Some(0), "{:?}", worker.output().last());
            // What it had taken and not begun is back in the queue by the time the next one consumes.
            if !worker.log().iter().any(|line| line["trigger"] == "message" && !line["outcome"].is_null()) {
                return;
            }
        }
    }

    /// A token that the test's processes accept.
    pub fn token(&self, user: &str, role: &str) -> String {
        self.sign(&claims(user, &[role], 3_600))
    }

    /// A token with any claims.
    pub fn sign(&self, claims: &Claims) -> String {
        auth::mint(&self.key, claims).expect("the key signs")
    }

    /// Ends every session of the programs, as an administrator does. Returns how many there were.
    ///
    /// # Errors
    /// Where the database is down for the moment.
    pub async fn end_sessions(&self) -> Result<i64, sqlx::Error> {
        sqlx::query_scalar(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
             WHERE datname = current_database() AND application_name LIKE 'bid-%'",
        )
        .fetch_one(&self.db)
        .await
    }

    /// Returns how many transactions of that program wait for a lock.
    pub async fn waiting_for_locks(&self, program: &str) -> i64 {
        sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
             AND split_part(application_name, ' ', 1) = $1 AND wait_event_type = 'Lock'",
        )
        .bind(program)
        .fetch_one(&self.db)
        .await
        .expect("looked")
    }

    /// The wires to PostgreSQL, RabbitMQ and Redis, and what is said over them.
    ///
    /// # Panics
    /// Where they were not asked for.
    pub fn wires(&self) -> [(&Proxy, Protocol); 3] {
        let wires = [
            (&self.database_wire, Protocol::Postgres),
            (&self.broker_wire, Protocol::Bytes),
            (&self.cache_wire, Protocol::Bytes),
        ];
        wires.map(|(wire, protocol)| (wire.as_ref().expect("the wires are asked for"), protocol))
    }

    /// The URL of its database, as a role reaches it.
    pub fn database_url(&self, role: Role) -> &str {
        let found = self.database_urls.iter().find(|(of, _)| *of == role);
        found.map_or_else(|| panic!("every role has one"), |(_, url)| url.as_str())
    }

    /// The same, as a test itself reaches it: it may do everything.
    pub fn administrator_url(&self) -> &str {
        &self.administrator_url
    }

    /// The private key (PEM) that its tokens are signed with.
    pub fn signing_key(&self) -> &str {
        self.key.expose_secret()
    }

    /// The public key (PEM) that its processes check tokens with.
    pub fn public_key(&self) -> &str {
        let found = self.variables.iter().find(|(known, _)| known == "GAVEL_JWT_PUBLIC_KEY");
        found.map_or_else(|| panic!("every system has one"), |(_, key)| key.as_str())
    }

    /// The name of the database, the vhost and the key prefix.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Returns what the test's processes accept of a user: with these roles, for so many seconds from now on.
pub fn claims(user: &str, roles: &[&str], seconds: i64) -> Claims {
    let now = Utc::now().timestamp();
    Claims {
        sub: user.to_owned(),
        roles: roles.iter().map(ToString::to_string).collect(),
        iss: "gavel".to_owned(),
        aud: "gavel".to_owned(),
        iat: now,
        exp: now + seconds,
    }
}

async fn administrator(servers: &Servers) -> PgConnection {
    PgConnection::connect(&format!("{}/postgres", servers.postgres)).await.expect("PostgreSQL answers")
}

/// Cloning a template takes milliseconds; migrating would take a hundred times that.
async fn clone_database(servers: &Servers, name: &str, tablespace: Option<&str>) {
    let mut admin = administrator(servers).await;
    let place = tablespace.map(|name| format!(" TABLESPACE {name}")).unwrap_or_default();
    let create = format!("CREATE DATABASE {name} TEMPLATE {} OWNER {OWNER}{place}", servers.template);
    admin.execute(create.as_str()).await.expect("the template is cloned");
    admin.close().await.expect("closed");
}

async fn make_vhost(servers: &Servers, name: &str) {
    let url = format!("{}/api/vhosts/{name}", servers.rabbitmq_api);
    // After a restart it answers later than the broker does.
    let ask = || reqwest::Client::new().put(&url).send();
    let made = eventually("RabbitMQ's API answers", ask, Result::is_ok).await.expect("it does");
    assert!(made.status().is_success(), "RabbitMQ made no vhost: {}", made.status());
}

async fn drop_vhost(servers: &Servers, name: &str) {
    let url = format!("{}/api/vhosts/{name}", servers.rabbitmq_api);
    let ask = || reqwest::Client::new().delete(&url).send();
    let dropped = eventually("RabbitMQ's API answers", ask, Result::is_ok).await.expect("it does");
    assert!(dropped.status().is_success(), "RabbitMQ dropped no vhost: {}", dropped.status());
}

async fn wire(url: &str, default_port: u16) -> Proxy {
    let host = host_of(url);
    Proxy::to(if host.contains(':') { host } else { format!("{host}:{default_port}") }).await
}

/// Bugs that are planted in the programs of this run.
fn planted() -> Option<(String, String)> {
    Some((planted::VARIABLE.to_owned(), std::env::var(planted::VARIABLE).ok()?))
}

fn keys(name: &str) -> (SecretString, String) {
    let dir: PathBuf = std::env::temp_dir().join(name);
    let dir_text = dir.to_string_lossy().into_owned();
    let made = std::process::Command::new(binary("bidctl")).args(["keygen", "--dir", &dir_text]).output();
    assert!(made.expect("bidctl runs").status.success(), "bidctl keygen failed");
    let read = |file: &str| std::fs::read_to_string(dir.join(file)).expect("the key is there");
    let keys = (SecretString::from(read("jwt-signing-key.pem")), read("jwt-public-key.pem"));
    std::fs::remove_dir_all(&dir).expect("removed");
    keys
}
