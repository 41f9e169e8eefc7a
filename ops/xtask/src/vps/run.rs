//! What each part of the run makes use of: the machine, its database, and clients that bid beside.
use super::{
    authority::Authority,
    load::{Load, Public, Taken},
    machine::Machine,
    watching::Watcher,
};
use anyhow::{Context, ensure as must};
use std::{
    collections::BTreeSet,
    fmt::{self, Display, Formatter},
    fs,
    ops::Add,
    path::PathBuf,
    thread,
    time::Duration,
};

pub(super) const HOST: &str = "auction.test";
/// A client bids for so long before something is done, and after it.
pub(super) const AROUND: Duration = Duration::from_secs(3);

/// Who watches meanwhile.
const WATCHERS: usize = 3;

/// The machine, and what runs on it.
pub(super) struct Run {
    pub(super) machine: Machine,
    pub(super) authority: Option<Authority>,
    pub(super) dir: PathBuf,
    pub(super) releases: [PathBuf; 3],
    pub(super) item: String,
}

/// What clients came to, of whom none saw a failure.
pub(super) struct Meanwhile {
    taken: usize,
    /// Those over which the watchers came to know the last bid.
    streams: usize,
}

impl Add for Meanwhile {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self { taken: self.taken + more.taken, streams: self.streams + more.streams }
    }
}

impl Display for Meanwhile {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { taken, streams } = self;
        write!(f, "{taken} bids taken meanwhile, none failed; watched over {streams} streams, none cut")
    }
}

impl Run {
    /// Of the release that runs; the first one where none does.
    pub(super) fn install_command(&self) -> String {
        let acme = if self.authority.is_some() { "https://pebble:14000/dir" } else { "none" };
        format!(
            "release=$(readlink /opt/gavel/current || echo /opt/gavel/releases/gavel-one)
             $release/ops/vps/install {HOST} --email ops@{HOST} --acme {acme}"
        )
    }

    /// Trusts whoever gave the certificate: pebble, or the machine itself.
    pub(super) fn public(&self) -> anyhow::Result<Public> {
        let authority = if let Some(authority) = &self.authority {
            authority.root.clone()
        } else {
            let own = self.dir.join("own.pem");
            fs::write(&own, self.machine.run("openssl x509 -in /etc/haproxy/certificates/gavel.pem")?)?;
            own
        };
        Ok(Public { host: HOST.to_owned(), authority })
    }

    pub(super) fn load(&self) -> anyhow::Result<Load> {
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

    /// While somebody bids, and others watch.
    ///
    /// # Errors
    /// When a call failed, a bid that was taken is gone, or a stream was cut.
    pub(super) fn under_load(&self, does: impl FnOnce(&Self) -> anyhow::Result<()>) -> anyhow::Result<Meanwhile> {
        let public = self.public()?;
        let watchers: Vec<_> = (0..WATCHERS).map(|_| Watcher::start(&public, &self.item)).collect();
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
        let version = self.sql(&format!("SELECT version FROM items WHERE item_id = '{}'", self.item))?;
        let version = version.trim().parse().context("a version")?;
        let streams = watchers.into_iter().map(|watcher| watcher.end(version)).sum::<anyhow::Result<usize>>()?;
        Ok(Meanwhile { taken: taken.len(), streams })
    }

    pub(super) fn all_are_there(&self, taken: &[Taken]) -> anyhow::Result<()> {
        let there = self.bids()?;
        let missing = taken.iter().filter(|bid| !there.contains(&bid.bid_id)).count();
        must!(missing == 0, "{missing} of {} bids that were taken are gone", taken.len());
        Ok(())
    }

    pub(super) fn bids(&self) -> anyhow::Result<BTreeSet<String>> {
        Ok(self.sql("SELECT bid_id FROM bids")?.lines().map(str::to_owned).collect())
    }

    pub(super) fn sql(&self, statement: &str) -> anyhow::Result<String> {
        self.machine.run(&format!("cd / && runuser -u postgres -- psql -qtA gavel -c \"{statement}\""))
    }

    pub(super) fn running(&self) -> anyhow::Result<String> {
        Ok(self.machine.run("basename $(readlink /opt/gavel/current)")?.trim().to_owned())
    }

    pub(super) fn moment(&self) -> anyhow::Result<String> {
        Ok(self.sql("SELECT clock_timestamp()")?.trim().to_owned())
    }
}
