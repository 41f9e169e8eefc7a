//! ops/vps on a VPS: installed from nothing, a version put over another while bids go on, one that does not start, the
//! way back, a certificate renewed, a mistake and a lost disk restored, a reboot. The VPS is a Debian that
//! systemd-nspawn boots: everything is real but its kernel, its disk and its hoster's network.
mod authority;
mod load;
mod machine;
mod releases;
mod restoring;
mod run;
mod watching;

use crate::{
    go,
    install::{C_COMPILER, CURL, DEBOOTSTRAP, NSPAWN, OPENSSL, PROTOC, ensure, is_root},
    progress::{Step, run_quietly},
    test::build,
};
use anyhow::{Context, bail, ensure as must};
use authority::Authority;
use machine::{HERE, Machine, THERE};
use run::{HOST, Run};
use serde_json::{Value, json};
use std::{
    fs,
    net::TcpStream,
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// What systemd makes of how little a unit may do: 0 is the best, 10 the worst.
const EXPOSED_AT_MOST: f64 = 1.5;
/// Where something listens that is not for everybody: PostgreSQL, RabbitMQ, Redis, a service and its operators' address.
const CLOSED: [u16; 5] = [5432, 5672, 6379, 8080, 18080];
const STRAY: u16 = 9999;
const UNITS: [&str; 3] = ["gavel-service@8080", "gavel-worker@1", "gavel-backfills"];

/// Runs all of it.
pub(crate) fn run() -> anyhow::Result<()> {
    if !is_root() {
        bail!("it boots a machine: only root can");
    }
    ensure(&[C_COMPILER, PROTOC, OPENSSL, CURL, DEBOOTSTRAP, NSPAWN])?;
    let bins = build(&["--package", "gavel", "--bins"], false)?;
    let dir = std::env::temp_dir().join(format!("gavel-vps-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let releases = releases::pack(&bins, &dir)?;
    let machine = Machine::boot()?;
    let authority = go::is_here().then(|| Authority::start(&dir, HOST)).transpose()?;
    let mut run = Run { machine, authority, dir, releases, item: String::new() };
    let ran = run.all();
    if ran.is_err() {
        eprintln!("{}", run.machine.journal());
    }
    let _ = fs::remove_dir_all(&run.dir);
    ran
}

impl Run {
    fn all(&mut self) -> anyhow::Result<()> {
        self.install()?;
        self.is_hardened()?;
        self.is_closed()?;
        self.deploy_under_load()?;
        self.go_back_by_itself()?;
        self.go_back()?;
        self.renew()?;
        self.drill()?;
        self.restore_to_before_a_mistake()?;
        self.restore_after_the_disk_was_lost()?;
        self.restore_where_the_database_is_gone()?;
        self.reboot()
    }

    fn install(&mut self) -> anyhow::Result<()> {
        let step = Step::begin("installing from nothing, as docs/operations.md tells");
        let began = Instant::now();
        self.machine.put(&self.releases[0], "/root/gavel-one.tar.gz")?;
        self.machine.run("mkdir -p /opt/gavel/releases && tar -xzf /root/gavel-one.tar.gz -C /opt/gavel/releases")?;
        if let Some(authority) = &self.authority {
            self.machine.put(&authority.own, "/usr/local/share/ca-certificates/acme.crt")?;
            self.machine.run(&format!("update-ca-certificates > /dev/null && echo '{HERE} pebble' >> /etc/hosts"))?;
        }
        self.machine.run(&self.install_command())?;
        // Once more: it changes nothing.
        self.machine.run(&self.install_command())?;
        self.machine.run("bidctl doctor")?;
        // What was connected before there was a firewall is not cut off by it.
        let is_well = "timeout 60 sh -c 'until bidctl doctor > /dev/null 2>&1; do sleep 1; done'";
        self.machine.run(&format!("systemctl restart rabbitmq-server && {is_well}"))?;
        let public = self.public()?;
        must!(public.call("ItemService/ListItems", "", &json!({})).is_ok(), "the public's way in");
        let created = self
            .machine
            .run("bidctl --json item create --user sam --title 'A lamp' --start-price-minor 1000 --ends-in 6h")?;
        let created: Value = serde_json::from_str(&created)?;
        let item = created["item"]["item_id"].as_str().or(created["item_id"].as_str());
        item.context("an item")?.clone_into(&mut self.item);
        step.done(format!("installed twice, doctor well, after {:.0} s", began.elapsed().as_secs_f64()));
        Ok(())
    }

    fn is_hardened(&self) -> anyhow::Result<()> {
        let step = Step::begin("systemd-analyze security");
        let mut worst: f64 = 0.0;
        for unit in UNITS {
            let said = self.machine.run(&format!("systemd-analyze security --no-pager {unit} | tail -1"))?;
            let exposure =
                said.split_whitespace().find_map(|word| word.parse::<f64>().ok()).with_context(|| said.clone())?;
            must!(exposure <= EXPOSED_AT_MOST, "{unit} is exposed: {exposure}");
            worst = worst.max(exposure);
        }
        let gateway = self.machine.run("ps -C haproxy -o user= | sort -u | tr '\\n' ' '")?;
        must!(gateway.contains("haproxy"), "what strangers talk to runs as {gateway}");
        step.done(format!("every unit is exposed by {worst} at most; the gateway is nobody in particular"));
        Ok(())
    }

    /// What anybody reaches: the gateway. And what the machine looks after by itself.
    fn is_closed(&self) -> anyhow::Result<()> {
        let step = Step::begin("what the public reaches");
        // What somebody has forgotten, and listens to everybody.
        self.machine.run(&format!("systemd-run --quiet --unit stray socat TCP-LISTEN:{STRAY},fork OPEN:/dev/null"))?;
        for port in CLOSED.into_iter().chain([STRAY]) {
            let address = format!("{THERE}:{port}").parse().context("an address")?;
            must!(TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err(), "{port} is open to all");
            self.machine.run(&format!("ss --tcp --listening --numeric | grep -q ':{port} '"))?;
        }
        self.machine.run("systemctl stop stray")?;
        let led = ["--silent", "--head", "--header", &format!("host: {HOST}"), &format!("http://{THERE}/items")];
        let led = run_quietly(Command::new("curl").args(led))?.to_lowercase();
        must!(led.starts_with("http/1.1 301") && led.contains(&format!("location: https://{HOST}/items")), "{led}");
        let upgrades = self.machine.run("apt-config dump APT::Periodic::Unattended-Upgrade")?;
        must!(upgrades.contains("\"1\""), "Debian's fixes are installed by themselves: {upgrades}");
        self.machine.run("systemctl is-enabled unattended-upgrades apt-daily-upgrade.timer nftables")?;
        step.done(format!("443, and 80, which leads there; not {CLOSED:?}; upgrades by themselves"));
        Ok(())
    }

    fn deploy_under_load(&self) -> anyhow::Result<()> {
        let step = Step::begin("a new version under load");
        self.machine.put(&self.releases[1], "/root/gavel-two.tar.gz")?;
        let meanwhile = self
            .under_load(|run| run.machine.run("/opt/gavel/current/ops/vps/deploy /root/gavel-two.tar.gz").map(drop))?;
        must!(self.running()? == "gavel-two", "two runs");
        step.done(meanwhile.to_string());
        Ok(())
    }

    fn go_back_by_itself(&self) -> anyhow::Result<()> {
        let step = Step::begin("a version that does not start, under load");
        self.machine.put(&self.releases[2], "/root/gavel-broken.tar.gz")?;
        let meanwhile = self.under_load(|run| {
            let failed = run.machine.run("TIMEOUT=10 /opt/gavel/current/ops/vps/deploy /root/gavel-broken.tar.gz");
            let failed = failed.err().context("the deploy fails")?.to_string();
            must!(failed.contains("gavel-broken did not get ready; gavel-two runs"), "{failed}");
            Ok(())
        })?;
        must!(self.running()? == "gavel-two", "two runs");
        step.done(format!("back by itself; {meanwhile}"));
        Ok(())
    }

    fn go_back(&self) -> anyhow::Result<()> {
        let step = Step::begin("the version before, and back again, under load");
        let back = |run: &Self| run.machine.run("/opt/gavel/current/ops/vps/deploy --back").map(drop);
        // Not the one that did not start.
        let there = self.under_load(back)?;
        must!(self.running()? == "gavel-one", "one runs");
        let back_again = self.under_load(back)?;
        must!(self.running()? == "gavel-two", "two runs");
        step.done((there + back_again).to_string());
        Ok(())
    }

    fn renew(&self) -> anyhow::Result<()> {
        if self.authority.is_none() {
            Step::begin("renewing the certificate")
                .done("not tried: who gives certificates is built by a Go toolchain");
            return Ok(());
        }
        let step = Step::begin("renewing the certificate under load");
        let before = self.public()?.serial()?;
        let meanwhile = self.under_load(|run| {
            run.machine.run("certbot renew --force-renewal --no-random-sleep-on-renew --quiet").map(drop)
        })?;
        let after = self.public()?.serial()?;
        must!(before != after && !after.is_empty(), "the gateway shows the certificate of before: {before}");
        step.done(format!("another certificate; {meanwhile}"));
        Ok(())
    }

    fn reboot(&mut self) -> anyhow::Result<()> {
        let step = Step::begin("rebooting");
        let began = Instant::now();
        let _ = self.machine.run("systemctl reboot");
        self.machine.comes_back()?;
        let public = self.public()?;
        while public.call("ItemService/ListItems", "", &json!({})).is_err() {
            must!(began.elapsed() < Duration::from_mins(3), "it does not come back");
            thread::sleep(Duration::from_millis(500));
        }
        let back = began.elapsed();
        let meanwhile = self.under_load(|_| Ok(()))?;
        step.done(format!("answers again after {:.0} s; {meanwhile}", back.as_secs_f64()));
        Ok(())
    }
}
