//! docker-compose.yml as a user brings it up, alone and with ops/compose/production.yml on top: built into one image, bid
//! through, each container killed, workers scaled.
use crate::{
    dist, images,
    install::{DOCKER, OPENSSL, ensure},
    progress::{Step, run_quietly, wait_until},
    test::build,
};
use anyhow::{Context, bail};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

const PROJECT: &str = "gavel-tried";
const IMAGE: &str = "gavel-tried";
/// Where the gateway is published.
const HTTPS_PORT: u16 = 24_443;
/// What leads there.
const HTTP_PORT: u16 = 24_080;
/// Workers at the end.
const WORKERS: usize = 3;
/// Everything is up within this, on a machine that is busy with nothing else.
const UP_WITHIN: Duration = Duration::from_mins(3);

/// Builds the image from this checkout's programs, brings docker-compose.yml up, uses it, and takes it down again.
pub(crate) fn run() -> anyhow::Result<()> {
    ensure(&[DOCKER])?;
    images::ensure()?;
    let bins = build(&["--package", "gavel", "--bins"], false)?;
    tried_with(build_image(&bins)?, &bins)
}

/// Brings up that image, both ways; `bins` has a client's program.
pub(crate) fn tried_with(image: &'static str, bins: &Path) -> anyhow::Result<()> {
    // From 2.24 on.
    let program = images::plugin("docker-compose")?;
    let dir = std::env::temp_dir().join(format!("gavel-compose-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let certificate = certificate(&dir)?;
    let for_development =
        Compose { program: program.clone(), image, files: &["docker-compose.yml"], certificate: None };
    for_development.try_out(Compose::tried)?;
    let files = &["docker-compose.yml", "ops/compose/production.yml"];
    let in_production = Compose { program, image, files, certificate: Some(certificate) };
    in_production.try_out(|compose| compose.tried_through_the_gateway(bins))?;
    std::fs::remove_dir_all(dir).map_err(Into::into)
}

/// One that it signs itself: the file for the gateway, and the one for who trusts it.
fn certificate(dir: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    ensure(&[OPENSSL])?;
    let (certificate, key) = gavel_gateway::certificate(dir)?;
    let both = dir.join("both.pem");
    std::fs::write(&both, std::fs::read_to_string(&certificate)? + &std::fs::read_to_string(key)?)?;
    // A test's: whoever the gateway runs as may read it.
    run_quietly(Command::new("chmod").arg("644").arg(&both))?;
    Ok((both, certificate))
}

/// One image of the programs that tests are built with, without what only a debugger reads.
fn build_image(bins: &Path) -> anyhow::Result<&'static str> {
    let step = Step::begin("building the image");
    let root = crate::root();
    dist::strip(bins, &root.join("target/dist"))?;
    let mut docker = Command::new("docker");
    docker.args(["build", "--network", "host", "--target", "prebuilt", "--tag", IMAGE]);
    docker.arg("--build-arg").arg(format!("RUNTIME_IMAGE={}", images::base()?));
    run_quietly(docker.arg(&root).env("DOCKER_BUILDKIT", "0"))?;
    step.done("image built");
    Ok(IMAGE)
}

struct Compose {
    program: PathBuf,
    image: &'static str,
    files: &'static [&'static str],
    /// The gateway's, and the one to trust.
    certificate: Option<(PathBuf, PathBuf)>,
}

impl Compose {
    fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.program);
        command.args(["--project-name", PROJECT]).args(self.files.iter().flat_map(|file| ["--file", file]));
        // Relative paths are the first file's.
        command.args(arguments).current_dir(crate::root());
        command.env("GAVEL_HTTPS_PORT", HTTPS_PORT.to_string()).env("GAVEL_HTTP_PORT", HTTP_PORT.to_string());
        if let Some((certificate, _)) = &self.certificate {
            command.env("GAVEL_CERTIFICATE", certificate);
        }
        let images = [
            ("GAVEL_POSTGRES_IMAGE", images::postgres()),
            ("GAVEL_RABBITMQ_IMAGE", images::rabbitmq()),
            ("GAVEL_REDIS_IMAGE", images::redis()),
            ("GAVEL_HAPROXY_IMAGE", images::haproxy()),
        ];
        run_quietly(command.env("GAVEL_IMAGE", self.image).envs(images))
    }

    fn bidctl(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let said = self.run(&[&["run", "--rm", "-T", "bidctl", "--json"], arguments].concat())?;
        serde_json::from_str(&said).with_context(|| format!("bidctl {}: {said}", arguments.join(" ")))
    }

    fn down(&self) -> anyhow::Result<()> {
        self.run(&["--profile", "backfills", "--profile", "tools", "down", "--volumes", "--remove-orphans"]).map(drop)
    }

    fn try_out(&self, uses: impl FnOnce(&Self) -> anyhow::Result<()>) -> anyhow::Result<()> {
        // What a run that was killed has left.
        self.down()?;
        let tried = uses(self);
        if tried.is_err() {
            eprintln!("{}", self.run(&["logs", "--no-color", "--tail", "30"]).unwrap_or_default());
        }
        self.down()?;
        tried
    }

    fn up(&self) -> anyhow::Result<()> {
        let step = Step::begin(format!("docker compose up ({})", self.files.join(", ")));
        let began = Instant::now();
        self.run(&["up", "--detach", "--no-build"])?;
        eventually("it is well", UP_WITHIN, || self.bidctl(&["doctor"]).is_ok())?;
        step.done(format!("everything is up and well after {:.0} s", began.elapsed().as_secs_f64()));
        Ok(())
    }

    /// As the public comes: over TLS, and nothing else of it is within reach.
    fn tried_through_the_gateway(&self, bins: &Path) -> anyhow::Result<()> {
        self.up()?;
        let step = Step::begin("bidding through the gateway");
        let item = self.create_item()?;
        let said = self.run(&["run", "--rm", "-T", "bidctl", "token", "--user", "alice", "--role", "bidder"])?;
        let (_, trusted) = self.certificate.as_ref().context("there is a gateway")?;
        let url = format!("https://localhost:{HTTPS_PORT}");
        let bid = |amount: &str| {
            let mut bidctl = Command::new(bins.join("bidctl"));
            bidctl.args(["bid", "--token", said.trim(), &item, amount, "--url", &url]);
            run_quietly(bidctl.arg("--cacert").arg(trusted)).is_ok()
        };
        eventually("a bid is taken through the gateway", UP_WITHIN, || bid("1000"))?;
        let published = self.run(&["ps", "--format", "json"])?;
        let ours =
            [HTTPS_PORT, HTTP_PORT, 0].map(|port| published.matches(&format!("\"PublishedPort\":{port},")).count());
        if ours[0] == 0 || published.matches("\"PublishedPort\":").count() != ours.iter().sum::<usize>() {
            bail!("the gateway alone is published: {published}");
        }
        let http = ureq::get(format!("http://localhost:{HTTP_PORT}/api/items/x"));
        let led = http.config().max_redirects(0).http_status_as_error(false).build().call()?;
        if led.status() != 301 {
            bail!("port 80 leads to TLS: {}", led.status());
        }
        self.run(&["kill", "worker"])?;
        if !bid("2000") {
            bail!("no bid is taken while no worker is there");
        }
        step.done("bid through the gateway, which alone is published");
        self.outlives(&["postgres", "rabbitmq", "redis", "service", "gateway"], bid)
    }

    /// Three workers are there, and bids are taken, whichever container was killed.
    fn outlives(&self, containers: &[&str], bid: impl Fn(&str) -> bool) -> anyhow::Result<()> {
        let step = Step::begin(format!("scaling workers to {WORKERS}, killing one container after the other"));
        // One that was taken, and whose answer is lost, is the price of the next.
        let mut amounts = (3_000..).step_by(1_000);
        for name in containers {
            self.run(&["kill", name])?;
            self.run(&["up", "--detach", "--no-build", "--no-recreate", "--scale", &format!("worker={WORKERS}")])?;
            eventually(&format!("a bid is taken after {name} was killed"), UP_WITHIN, || {
                amounts.next().is_some_and(|amount| bid(&amount.to_string()))
            })?;
        }
        eventually("three workers are there", UP_WITHIN, || self.workers() == Some(WORKERS as i64))?;
        eventually("everything is well", UP_WITHIN, || self.bidctl(&["doctor"]).is_ok())?;
        step.done(format!("bids again after each of {} was killed; {WORKERS} workers", containers.join(", ")));
        Ok(())
    }

    fn create_item(&self) -> anyhow::Result<String> {
        let new = ["--title", "A lamp", "--start-price-minor", "1000", "--ends-in", "1h"];
        let created = self.bidctl(&[&["item", "create", "--user", "sam"], &new[..]].concat())?;
        Ok(created["item"]["item_id"].as_str().or(created["item_id"].as_str()).context("an item")?.to_owned())
    }

    fn tried(&self) -> anyhow::Result<()> {
        self.up()?;
        let step = Step::begin("bidding, and killing the worker");
        let item = self.create_item()?;
        self.bid(&item, "alice", "1000")?;
        self.run(&["kill", "worker"])?;
        // It is taken without a worker as well; and what waits is applied by the next one.
        self.bid(&item, "bob", "2000")?;
        self.run(&["up", "--detach", "--no-build", "--no-recreate"])?;
        eventually("the statistics have the second bid", UP_WITHIN, || self.has_bid("bob"))?;
        step.done("bid through, with the worker killed and another in its place");
        self.outlives(&["postgres", "rabbitmq", "redis", "service"], |amount| {
            self.bid(&item, "alice", amount).is_ok()
        })?;
        eventually("the service is healthy", UP_WITHIN, || {
            self.run(&["ps", "service"]).is_ok_and(|said| said.contains("(healthy)"))
        })
    }

    fn bid(&self, item: &str, user: &str, amount: &str) -> anyhow::Result<Value> {
        self.bidctl(&["bid", "--user", user, item, amount])
    }

    fn has_bid(&self, user: &str) -> bool {
        self.bidctl(&["stats", "--user", user]).is_ok_and(|said| said.to_string().contains("\"bids_placed\":1"))
    }

    fn workers(&self) -> Option<i64> {
        let listed = self.bidctl(&["queue", "list", "--user", "olga"]).ok()?;
        let queues = listed["queues"].as_array()?;
        queues.iter().find(|queue| queue["kind"] == "close_item")?["workers"].as_i64()
    }
}

fn eventually(what: &str, within: Duration, mut is_so: impl FnMut() -> bool) -> anyhow::Result<()> {
    let look = || {
        thread::sleep(Duration::from_millis(500));
        is_so()
    };
    wait_until(what, within, || Ok(()), look)
}
