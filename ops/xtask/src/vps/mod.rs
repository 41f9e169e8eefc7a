//! ops/vps on a VPS: installed from nothing, a version put over another while bids go on, one that does not start, the
//! way back, a certificate renewed, a mistake and a lost disk restored, a reboot. The VPS is a Debian that
//! systemd-nspawn boots: everything is real but its kernel, its disk and its hoster's network.
mod authority;
mod load;
mod machine;
mod releases;

use crate::{
    go,
    install::{C_COMPILER, CURL, DEBOOTSTRAP, NSPAWN, OPENSSL, PROTOC, ensure, is_root},
    progress::Step,
    test::build,
};
use anyhow::{Context, bail, ensure as must};
use authority::Authority;
use load::{Load, Public, Taken};
use machine::{HERE, Machine};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

const HOST: &str = "auction.test";
/// What systemd makes of how little a unit may do: 0 is the best, 10 the worst.
const EXPOSED_AT_MOST: f64 = 1.5;
const UNITS: [&str; 3] = ["gavel-service@8080", "gavel-worker@1", "gavel-backfills"];
/// A client bids for so long before something is done, and after it.
const AROUND: Duration = Duration::from_secs(3);
/// Write-ahead log is archived at least as often as this: archive_timeout, and a little.
const ARCHIVED_WITHIN: Duration = Duration::from_secs(75);

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

struct Run {
    machine: Machine,
    authority: Option<Authority>,
    dir: PathBuf,
    releases: [PathBuf; 3],
    item: String,
}

impl Run {
    fn all(&mut self) -> anyhow::Result<()> {
        self.install()?;
        self.is_hardened()?;
        self.deploy_under_load()?;
        self.go_back_by_itself()?;
        self.go_back()?;
        self.renew()?;
        self.drill()?;
        self.restore_to_before_a_mistake()?;
        self.restore_after_the_disk_was_lost()?;
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

    /// Of the release that runs; the first one where none does.
    fn install_command(&self) -> String {
        let acme = if self.authority.is_some() { "https://pebble:14000/dir" } else { "none" };
        format!(
            "release=$(readlink /opt/gavel/current || echo /opt/gavel/releases/gavel-one)
             $release/ops/vps/install {HOST} --email ops@{HOST} --acme {acme}"
        )
    }

    /// Trusts whoever gave the certificate: pebble, or the machine itself.
    fn public(&self) -> anyhow::Result<Public> {
        let authority = if let Some(authority) = &self.authority {
            authority.root.clone()
        } else {
            let own = self.dir.join("own.pem");
            fs::write(&own, self.machine.run("openssl x509 -in /etc/haproxy/certificates/gavel.pem")?)?;
            own
        };
        Ok(Public { host: HOST.to_owned(), authority })
    }

    fn load(&self) -> anyhow::Result<Load> {
        let token = |user: &str| -> anyhow::Result<String> {
            Ok(self.machine.run(&format!("bidctl token --user {user} --role bidder --minutes 60"))?.trim().to_owned())
        };
        let next = format!(
            "SELECT coalesce(price_minor + 10000, start_price_minor) FROM items WHERE item_id = '{}'",
            self.item
        );
        let next = self.sql(&next)?.trim().parse().context("a price")?;
        let load = Load::start(&self.public()?, [token("alice")?, token("bob")?], &self.item, next);
        thread::sleep(AROUND);
        Ok(load)
    }

    /// While somebody bids; gives how many were taken, where none failed.
    fn under_load(&self, does: impl FnOnce(&Self) -> anyhow::Result<()>) -> anyhow::Result<usize> {
        let load = self.load()?;
        does(self)?;
        thread::sleep(AROUND);
        let (taken, failed) = load.end();
        must!(
            failed.is_empty(),
            "{} calls failed beside {} that did not: {:?}",
            failed.len(),
            taken.len(),
            failed.first()
        );
        self.all_are_there(&taken)?;
        Ok(taken.len())
    }

    fn all_are_there(&self, taken: &[Taken]) -> anyhow::Result<()> {
        let there = self.bids()?;
        let missing = taken.iter().filter(|bid| !there.contains(&bid.bid_id)).count();
        must!(missing == 0, "{missing} of {} bids that were taken are gone", taken.len());
        Ok(())
    }

    fn bids(&self) -> anyhow::Result<BTreeSet<String>> {
        Ok(self.sql("SELECT bid_id FROM bids")?.lines().map(str::to_owned).collect())
    }

    fn sql(&self, statement: &str) -> anyhow::Result<String> {
        self.machine.run(&format!("cd / && runuser -u postgres -- psql -qtA gavel -c \"{statement}\""))
    }

    fn running(&self) -> anyhow::Result<String> {
        Ok(self.machine.run("basename $(readlink /opt/gavel/current)")?.trim().to_owned())
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

    fn deploy_under_load(&self) -> anyhow::Result<()> {
        let step = Step::begin("a new version under load");
        self.machine.put(&self.releases[1], "/root/gavel-two.tar.gz")?;
        let taken = self
            .under_load(|run| run.machine.run("/opt/gavel/current/ops/vps/deploy /root/gavel-two.tar.gz").map(drop))?;
        must!(self.running()? == "gavel-two", "two runs");
        step.done(format!("{taken} bids taken meanwhile, none failed"));
        Ok(())
    }

    fn go_back_by_itself(&self) -> anyhow::Result<()> {
        let step = Step::begin("a version that does not start, under load");
        self.machine.put(&self.releases[2], "/root/gavel-broken.tar.gz")?;
        let taken = self.under_load(|run| {
            let failed = run.machine.run("TIMEOUT=10 /opt/gavel/current/ops/vps/deploy /root/gavel-broken.tar.gz");
            let failed = failed.err().context("the deploy fails")?.to_string();
            must!(failed.contains("gavel-broken did not get ready; gavel-two runs"), "{failed}");
            Ok(())
        })?;
        must!(self.running()? == "gavel-two", "two runs");
        step.done(format!("back by itself; {taken} bids taken meanwhile, none failed"));
        Ok(())
    }

    fn go_back(&self) -> anyhow::Result<()> {
        let step = Step::begin("the version before, and back again, under load");
        let back = |run: &Self| run.machine.run("/opt/gavel/current/ops/vps/deploy --back").map(drop);
        // Not the one that did not start.
        let first = self.under_load(back)?;
        must!(self.running()? == "gavel-one", "one runs");
        let second = self.under_load(back)?;
        must!(self.running()? == "gavel-two", "two runs");
        step.done(format!("{} bids taken meanwhile, none failed", first + second));
        Ok(())
    }

    fn renew(&self) -> anyhow::Result<()> {
        if self.authority.is_none() {
            eprintln!("  certificates: not renewed, there is no Go toolchain for who gives them");
            return Ok(());
        }
        let step = Step::begin("renewing the certificate under load");
        let before = self.public()?.serial()?;
        let taken = self.under_load(|run| {
            run.machine.run("certbot renew --force-renewal --no-random-sleep-on-renew --quiet").map(drop)
        })?;
        let after = self.public()?.serial()?;
        must!(before != after && !after.is_empty(), "the gateway shows the certificate of before: {before}");
        step.done(format!("another certificate, {taken} bids taken meanwhile, none failed"));
        Ok(())
    }

    fn drill(&self) -> anyhow::Result<()> {
        let step = Step::begin("a drill of the restore, beside the database");
        let said = self.machine.run("/opt/gavel/current/ops/vps/drill")?;
        step.done(said.trim());
        Ok(())
    }

    fn moment(&self) -> anyhow::Result<String> {
        Ok(self.sql("SELECT clock_timestamp()")?.trim().to_owned())
    }

    /// A moment of before there were backups is refused, and nothing is stopped for it.
    fn too_early_is_refused(&self) -> anyhow::Result<()> {
        self.under_load(|run| {
            let refused = run.machine.run("/opt/gavel/current/ops/vps/restore '2020-01-01 00:00:00+00'");
            let refused = refused.err().context("it is refused")?.to_string();
            must!(refused.contains("before the end of the oldest backup"), "{refused}");
            Ok(())
        })
        .map(drop)
    }

    /// Bids until a moment, then a mistake. First too early a moment is chosen, and then the right one, which is on
    /// another timeline.
    fn restore_to_before_a_mistake(&self) -> anyhow::Result<()> {
        let step = Step::begin("restoring to the moment before a mistake");
        self.too_early_is_refused()?;
        let load = self.load()?;
        let too_early = self.moment()?;
        thread::sleep(AROUND);
        let before = load.taken();
        let moment = self.moment()?;
        thread::sleep(Duration::from_secs(1));
        self.sql("DELETE FROM user_stats; UPDATE items SET title = 'all the same'")?;
        let (_, failed) = load.end();
        must!(failed.is_empty(), "{failed:?}");
        self.archived()?;
        self.machine.run(&format!("/opt/gavel/current/ops/vps/restore '{too_early}'"))?;
        must!(self.all_are_there(&before).is_err(), "it went back too far");
        let began = Instant::now();
        self.machine.run(&format!("/opt/gavel/current/ops/vps/restore '{moment}'"))?;
        let took = began.elapsed();
        self.all_are_there(&before)?;
        must!(
            self.sql("SELECT count(*) FROM items WHERE title = 'all the same'")?.trim() == "0",
            "the mistake is still there"
        );
        self.statistics_are_right()?;
        let taken = self.under_load(|_| Ok(()))?;
        self.statistics_are_right()?;
        step.done(format!(
            "in {:.0} s; all {} bids of before are there, and {taken} more",
            took.as_secs_f64(),
            before.len()
        ));
        Ok(())
    }

    /// Until everything that is committed now is in the repository.
    fn archived(&self) -> anyhow::Result<()> {
        let until = Instant::now() + ARCHIVED_WITHIN;
        let now = self.sql("SELECT pg_current_wal_insert_lsn()")?;
        let now = now.trim();
        loop {
            let behind = self.sql(&format!(
                "SELECT coalesce(last_archived_wal, '') < pg_walfile_name('{now}') FROM pg_stat_archiver"
            ))?;
            if behind.trim() == "f" {
                return Ok(());
            }
            must!(Instant::now() < until, "the log is not archived within {ARCHIVED_WITHIN:?}");
            thread::sleep(Duration::from_secs(1));
        }
    }

    fn statistics_are_right(&self) -> anyhow::Result<()> {
        let wrong = "SELECT count(*) FROM (SELECT bidder_id, count(*) AS n FROM bids GROUP BY 1) b
                     LEFT JOIN user_stats s ON s.user_id = b.bidder_id WHERE s.bids_placed IS DISTINCT FROM b.n";
        let until = Instant::now() + Duration::from_secs(30);
        while self.sql(wrong)?.trim() != "0" {
            must!(
                Instant::now() < until,
                "statistics differ from the ledger: {}",
                self.sql("SELECT * FROM user_stats")?
            );
            thread::sleep(Duration::from_millis(500));
        }
        Ok(())
    }

    fn restore_after_the_disk_was_lost(&self) -> anyhow::Result<()> {
        let step = Step::begin("losing the database's disk under load, and restoring");
        let load = self.load()?;
        thread::sleep(Duration::from_secs(5));
        let safe = load.taken();
        self.archived()?;
        thread::sleep(Duration::from_secs(5));
        self.machine.run(
            "version=$(ls /etc/postgresql | tail -1); pkill -KILL -u postgres postgres; rm -rf /var/lib/postgresql/$version/main",
        )?;
        let lost_at = Instant::now();
        thread::sleep(Duration::from_secs(2));
        let (all, _) = load.end();
        // As on another machine: a database that knows nothing of the backups, and an install that finds them.
        self.machine.run(
            "version=$(ls /etc/postgresql | tail -1); cd / && runuser -u postgres -- \
             /usr/lib/postgresql/$version/bin/initdb -D /var/lib/postgresql/$version/main > /dev/null",
        )?;
        let said = self.machine.run(&self.install_command())?;
        must!(said.contains("the backups are another database's"), "{said}");
        self.machine.run("/opt/gavel/current/ops/vps/restore latest")?;
        let recovered = lost_at.elapsed();
        let there = self.bids()?;
        let newest = all.iter().filter(|bid| there.contains(&bid.bid_id)).map(|bid| bid.at).max().context("bids")?;
        let lost = all.iter().filter(|bid| bid.at > newest).count();
        must!(safe.iter().all(|bid| there.contains(&bid.bid_id)), "bids that were archived are gone");
        let taken = self.under_load(|_| Ok(()))?;
        self.statistics_are_right()?;
        step.done(format!(
            "bids again after {:.0} s (RTO); of {} bids the last {lost} are lost, of {:.1} s (RPO, at most 60 s); {taken} more taken",
            recovered.as_secs_f64(),
            all.len(),
            (lost_at - newest).as_secs_f64(),
        ));
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
        let taken = self.under_load(|_| Ok(()))?;
        step.done(format!("answers again after {:.0} s, and took {taken} bids", back.as_secs_f64()));
        Ok(())
    }
}
