//! The whole system, up and down.
use crate::{
    install::{C_COMPILER, HAPROXY, NGINX, OPENSSL, PROTOC, ensure, is_root},
    observe,
    progress::{Step, run_quietly, wait_until},
    servers::{
        Child,
        layout::Layout,
        processes::{DATABASE, Processes},
        secrets::write_private,
    },
    supervisor::Supervised,
    test::{build, prepare},
};
use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use gavel_accounts::{Program as Account, postgres::Role};
use gavel_gateway::{Gateway, Kind, Limits, Upstream};
use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

const LAYOUT: &str = "dev";
/// What the worker runs that acts as the owner of the tables, and nothing else.
const BACKFILLS: [&str; 2] = ["--only", "run_backfill_chunk,run_online_step"];
/// Title, start price in minor units, and how long the auction of each seeded item lasts.
const SEED: [(&str, &str, &str); 5] = [
    ("A brass desk lamp", "1000", "5m"),
    ("A first edition, slightly foxed", "4500", "1h"),
    ("A bicycle with one owner", "12000", "1d"),
    ("A box of forty records", "2500", "3d"),
    ("A walnut writing desk", "30000", "7d"),
];

/// Runs Gavel on this machine, from nothing.
#[derive(Args)]
pub(crate) struct Up {
    /// Build and run with optimisations
    #[arg(long)]
    release: bool,
    /// Put the TLS gateway in front, on a local port
    #[arg(long, value_name = "PROGRAM", num_args = 0..=1, default_missing_value = "nginx")]
    gateway: Option<Program>,
    /// Start Prometheus and Alertmanager beside it, with the rules of ops/observability
    #[arg(long)]
    observe: bool,
}

/// What the gateway runs on.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Program {
    Nginx,
    Haproxy,
}

/// Stops Gavel's processes of this checkout.
#[derive(Args)]
pub(crate) struct Down {
    /// Delete its data too
    #[arg(long)]
    wipe: bool,
}

impl Up {
    pub(crate) fn run(&self, interrupted: &mpsc::Receiver<()>) -> anyhow::Result<()> {
        ensure(&[C_COMPILER, PROTOC])?;
        let mut servers = Processes::start(Layout::claim(LAYOUT)?, true)?;
        let bins = build(&["--package", "gavel", "--bins"], self.release)?;
        let variables = environment(&servers, &bins)?;
        let step = Step::begin("migrating");
        prepare(&bins, &servers.urls, DATABASE, &servers.passwords)?;
        step.done("migrated");
        let layout = servers.layout.clone();
        let system = System { layout: &layout, bins: &bins, variables: &variables };
        let own = [("DATABASE_URL", servers.database_of(Role::Worker))];
        let mut worker = system.start("bid-worker", "bid-worker", &[], layout.worker_ops_port(), &own)?;
        let mut backfills = system.start("backfills", "bid-worker", &BACKFILLS, layout.backfills_ops_port(), &[])?;
        let own = service_environment(&servers, self.gateway.is_some());
        let mut service = system.start("bid-service", "bid-service", &[], layout.service_ops_port(), &own)?;
        let mut gateway = self.gateway.map(|program| system.start_gateway(program)).transpose()?;
        let mut observed = if self.observe { observe::start(&layout)? } else { Vec::new() };
        let item = system.seed()?;
        system.greet(&item, gateway.is_some())?;
        if self.observe {
            observe::greet(&layout);
        }
        loop {
            if !matches!(interrupted.recv_timeout(Duration::from_millis(300)), Err(mpsc::RecvTimeoutError::Timeout)) {
                break;
            }
            servers.check()?;
            worker.look()?;
            backfills.look()?;
            service.look()?;
            gateway.as_mut().map_or(Ok(()), Child::check)?;
            observed.iter_mut().try_for_each(Child::check)?;
        }
        let step = Step::begin("stopping");
        drop(observed);
        drop(gateway);
        service.stop();
        worker.stop();
        backfills.stop();
        drop(servers);
        step.done("everything is stopped; the data stays until `cargo xtask down --wipe`");
        Ok(())
    }
}

impl Down {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let developed = self.stop(LAYOUT);
        if developed.is_ok() {
            let _ = fs::remove_file(environment_file());
        }
        // Tests that run have nothing to do with what is stopped.
        let tested = self.stop("test");
        developed.and(tested)
    }

    /// What is still in use is refused; what is not, and runs all the same, is stopped.
    fn stop(&self, name: &'static str) -> anyhow::Result<()> {
        let layout = Layout::claim(name)?;
        if self.wipe {
            let had_data = layout.dir.join("log").read_dir()?.next().is_some();
            fs::remove_dir_all(&layout.dir).with_context(|| format!("can't delete {}", layout.dir.display()))?;
            if had_data {
                eprintln!("  ✓ {} deleted", layout.dir.display());
            }
        }
        Ok(())
    }
}

fn environment_file() -> PathBuf {
    crate::root().join(".gavel").join(format!("{LAYOUT}.env"))
}

/// Makes the development keys, and writes what bidctl reads by itself. Those are an operator's, who changes the schema
/// too: the worker of backfills runs with them, and the others with accounts of their own in place of some.
fn environment(servers: &Processes, bins: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let (layout, urls) = (&servers.layout, &servers.urls);
    let keys = layout.dir.join("keys");
    if !keys.join("jwt-signing-key.pem").exists() {
        run_quietly(Command::new(bins.join("bidctl")).arg("keygen").arg("--dir").arg(&keys))?;
    }
    let key = |name: &str| keys.join(name).display().to_string();
    let processes = [layout.service_ops_port(), layout.worker_ops_port(), layout.backfills_ops_port()];
    let processes = processes.map(|port| format!("http://127.0.0.1:{port}"));
    let variables: Vec<(String, String)> = [
        ("DATABASE_URL", servers.database_of(Role::Migrator)),
        ("AMQP_URL", urls.amqp_of(Account::Worker, &servers.passwords)),
        ("REDIS_URL", urls.redis_of(Account::Worker, &servers.passwords)),
        ("GAVEL_URL", format!("http://127.0.0.1:{}", layout.service_port())),
        ("GAVEL_OPS_URL", format!("http://127.0.0.1:{}", layout.service_ops_port())),
        ("GAVEL_PROCESSES", processes.join(",")),
        ("GAVEL_JWT_PUBLIC_KEY_FILE", key("jwt-public-key.pem")),
        ("GAVEL_JWT_SIGNING_KEY_FILE", key("jwt-signing-key.pem")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let lines: Vec<_> = variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let file = environment_file();
    fs::create_dir_all(file.parent().unwrap_or(Path::new(".")))?;
    write_private(&file, &format!("# Written by `cargo xtask up`; read by bidctl.\n{}\n", lines.join("\n")))?;
    Ok(variables)
}

/// Returns what is the service's own: its accounts, its address, and the gateway's that may stand before it.
fn service_environment(servers: &Processes, has_gateway: bool) -> Vec<(&'static str, String)> {
    let trusted_proxies = if has_gateway { "127.0.0.1,::1" } else { "" };
    vec![
        ("GAVEL_TRUSTED_PROXIES", trusted_proxies.to_owned()),
        ("DATABASE_URL", servers.database_of(Role::Service)),
        ("AMQP_URL", servers.urls.amqp_of(Account::Service, &servers.passwords)),
        ("REDIS_URL", servers.urls.redis_of(Account::Service, &servers.passwords)),
        ("GAVEL_LISTEN", format!("127.0.0.1:{}", servers.layout.service_port())),
    ]
}

struct System<'a> {
    layout: &'a Layout,
    bins: &'a Path,
    variables: &'a [(String, String)],
}

impl System<'_> {
    /// Starts a program whose operators' listener is on that port, and waits until it is ready.
    fn start(
        &self,
        name: &'static str,
        program: &'static str,
        arguments: &'static [&'static str],
        ops_port: u16,
        variables: &[(&'static str, String)],
    ) -> anyhow::Result<Supervised<'_>> {
        let step = Step::begin(format!("starting {name}"));
        let address = format!("127.0.0.1:{ops_port}");
        let url = format!("http://{address}/readyz");
        let (own, listen) = (variables.to_vec(), address.clone());
        let start = move || {
            let mut command = Command::new(self.bins.join(program));
            command
                .args(arguments)
                .current_dir(&self.layout.dir)
                .envs(self.variables.iter().cloned())
                .env("GAVEL_OPS_LISTEN", &listen);
            Child::start(self.layout, name, "TERM", command.envs(own.iter().map(|(name, value)| (name, value))))
        };
        let mut program = Supervised::start(start, move || ureq::get(&url).call().is_ok())?;
        let until = Instant::now() + Duration::from_mins(1);
        while !program.is_ready() {
            program.look()?;
            if Instant::now() > until {
                bail!("{name} is not ready after a minute; its log: {}", self.layout.log(name).display());
            }
            thread::sleep(Duration::from_millis(50));
        }
        step.done(format!("{name} is ready, its log in {}", self.layout.log(name).display()));
        Ok(program)
    }

    fn start_gateway(&self, program: Program) -> anyhow::Result<Child> {
        let (kind, need) = match program {
            Program::Nginx => (Kind::Nginx, NGINX),
            Program::Haproxy => (Kind::Haproxy, HAPROXY),
        };
        ensure(&[OPENSSL, need])?;
        let step = Step::begin("starting the gateway");
        let port = self.layout.gateway_port();
        let address = format!("127.0.0.1:{}", self.layout.service_port());
        let services = vec![Upstream { address, ops_port: self.layout.service_ops_port() }];
        let gateway = Gateway { kind, port, services, dir: self.gateway_dir(), limits: Limits::USUAL };
        let mut child = Child::start(self.layout, "gateway", "TERM", &mut gateway.prepare()?)?;
        let ready = || TcpStream::connect(("127.0.0.1", port)).is_ok();
        wait_until("the gateway", Duration::from_secs(30), || child.check(), ready)?;
        step.done(format!("the gateway on https://localhost:{port}"));
        Ok(child)
    }

    fn gateway_dir(&self) -> PathBuf {
        self.layout.dir.join("gateway")
    }

    fn bidctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(self.bins.join("bidctl"));
        run_quietly(command.args(arguments).envs(self.variables.iter().cloned()))
    }

    /// A handful of items where none is open, and one to bid on: the one that runs longest.
    fn seed(&self) -> anyhow::Result<serde_json::Value> {
        if self.open_items()?.is_empty() {
            let step = Step::begin("publishing a few items");
            for (title, start_price_minor, ends_in) in SEED {
                let price = format!("--start-price-minor={start_price_minor}");
                let ends_in = format!("--ends-in={ends_in}");
                self.bidctl(&["item", "create", "--user", "sam", "--title", title, &price, &ends_in])?;
            }
            step.done(format!("{} items published", SEED.len()));
        }
        let items = self.open_items()?;
        let latest = items.into_iter().max_by_key(|item| item["ends_at"].as_str().map(ToOwned::to_owned));
        latest.context("no item is open")
    }

    fn open_items(&self) -> anyhow::Result<Vec<serde_json::Value>> {
        let listed: serde_json::Value =
            serde_json::from_str(&self.bidctl(&["--json", "item", "list", "--status", "open", "--limit", "1000"])?)?;
        Ok(listed["items"].as_array().cloned().unwrap_or_default())
    }

    fn greet(&self, item: &serde_json::Value, has_gateway: bool) -> anyhow::Result<()> {
        let (id, minimum) = (item["item_id"].as_str().unwrap_or_default(), &item["next_minimum_minor"]);
        let token = self.bidctl(&["token", "--user", "alice", "--role", "bidder", "--minutes", "720"])?;
        let bidctl = self.bins.join("bidctl");
        let here = std::env::current_dir()?;
        let bidctl = bidctl.strip_prefix(&here).unwrap_or(&bidctl).display();
        let at = |port: u16| format!("http://127.0.0.1:{port}");
        println!(
            "\nGavel is up{}.\n\n\
             \x20 the API (gRPC, gRPC-Web, Connect)             {}\n\
             \x20 for operators (OpsService, /readyz, /metrics) {}\n\
             \x20 the worker's /readyz and /metrics             {}\n\
             \x20 a bidder's token, valid for 12 hours          {}\n\n\
             Try, in another terminal:\n\n\
             \x20 {bidctl} bid --wait --user alice {id} {minimum}\n\
             \x20 {bidctl} item show {id}\n\
             \x20 {bidctl} stats --user alice\n\n\
             `{bidctl} --help` and `{bidctl} doctor` tell more. Ctrl-C stops everything; `cargo xtask up` again finds the \
             data as it was.",
            if is_root() { " (as root: PostgreSQL runs as the user postgres)" } else { "" },
            at(self.layout.service_port()),
            at(self.layout.service_ops_port()),
            at(self.layout.worker_ops_port()),
            token.trim(),
        );
        if has_gateway {
            let (port, dir) = (self.layout.gateway_port(), self.gateway_dir());
            println!(
                "\nThe gateway is on https://localhost:{port} (gRPC, gRPC-Web and Connect; browsers under /api):\n\n\
                 \x20 curl --cacert {}/certificate.pem -H 'content-type: application/json' \\\n\
                 \x20   -d '{{\"itemId\": \"{id}\"}}' https://localhost:{port}/api/gavel.v1.ItemService/GetItem",
                dir.display(),
            );
        }
        Ok(())
    }
}
