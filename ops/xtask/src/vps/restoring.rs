//! Backups: whether they are worth anything, a mistake taken back, a disk and a database lost.
use super::{
    load::Taken,
    run::{AROUND, Run},
};
use crate::progress::Step;
use anyhow::{Context, ensure as must};
use serde_json::Value;
use std::{
    thread,
    time::{Duration, Instant},
};

/// Write-ahead log is archived at least as often as this: archive_timeout, and a little.
const ARCHIVED_WITHIN: Duration = Duration::from_secs(75);

impl Run {
    pub(super) fn drill(&self) -> anyhow::Result<()> {
        let step = Step::begin("a full backup, and a drill of the restore, beside the database and under load");
        let mut said = String::new();
        let meanwhile = self.under_load(|run| {
            run.machine.run("systemctl start gavel-backup@full")?;
            said = run.machine.run("/opt/gavel/current/ops/vps/drill")?;
            Ok(())
        })?;
        step.done(format!("{}; {meanwhile}", said.trim()));
        Ok(())
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
    pub(super) fn restore_to_before_a_mistake(&self) -> anyhow::Result<()> {
        let step = Step::begin("restoring to the moment before a mistake");
        self.too_early_is_refused()?;
        let load = self.load()?;
        let too_early = self.moment()?;
        thread::sleep(AROUND);
        let before = load.taken();
        let moment = self.moment()?;
        thread::sleep(Duration::from_secs(1));
        self.sql("DELETE FROM user_stats; UPDATE items SET title = 'all the same'")?;
        let (all, failed) = load.end();
        must!(failed.is_empty(), "{failed:?}");
        self.archived()?;
        self.machine.run(&format!("/opt/gavel/current/ops/vps/restore '{too_early}'"))?;
        must!(self.all_are_there(&before).is_err(), "it went back too far");
        self.nothing_came_after(&all)?;
        let began = Instant::now();
        self.machine.run(&format!("/opt/gavel/current/ops/vps/restore '{moment}'"))?;
        let took = began.elapsed();
        self.all_are_there(&before)?;
        must!(
            self.sql("SELECT count(*) FROM items WHERE title = 'all the same'")?.trim() == "0",
            "the mistake is still there"
        );
        self.statistics_are_right()?;
        let meanwhile = self.under_load(|_| Ok(()))?;
        self.statistics_are_right()?;
        step.done(format!(
            "in {:.0} s; all {} bids of before are there; {meanwhile}",
            took.as_secs_f64(),
            before.len()
        ));
        Ok(())
    }

    /// A moment while the first restore was under way, when nothing was committed: it is the end of what was left.
    fn nothing_came_after(&self, all: &[Taken]) -> anyhow::Result<()> {
        let began = "cd / && runuser -u postgres -- pgbackrest repo-ls --output=json \
                     archive/gavel/$(runuser -u postgres -- pgbackrest repo-ls archive/gavel | grep -x '[0-9]*-[0-9]*')";
        let listed: Value = serde_json::from_str(&self.machine.run(began)?)?;
        let listed = listed.as_object().context("an archive")?;
        let histories = listed.iter().filter(|(name, _)| name.ends_with(".history"));
        let began = histories.filter_map(|(_, of)| of["time"].as_i64()).max().context("another timeline")?;
        let moment = self.machine.run(&format!("date --utc --date @{}.999 '+%F %T.%3N+00'", began - 1))?;
        let said = self.machine.run(&format!("/opt/gavel/current/ops/vps/restore '{}'", moment.trim()))?;
        must!(said.contains("to the end of timeline 1"), "{said}");
        self.all_are_there(all)
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

    pub(super) fn restore_after_the_disk_was_lost(&self) -> anyhow::Result<()> {
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
        let meanwhile = self.under_load(|_| Ok(()))?;
        self.statistics_are_right()?;
        step.done(format!(
            "bids again after {:.0} s (RTO); of {} bids the last {lost} are lost, of {:.1} s (RPO, at most 60 s); {meanwhile}",
            recovered.as_secs_f64(),
            all.len(),
            (lost_at - newest).as_secs_f64(),
        ));
        Ok(())
    }

    /// As on a machine whose PostgreSQL is a copy of this one's, or whose database somebody has dropped: an install does
    /// not begin anew over the backups of what there was, however often it runs.
    pub(super) fn restore_where_the_database_is_gone(&self) -> anyhow::Result<()> {
        let step = Step::begin("the database dropped, and restoring to the moment before");
        let load = self.load()?;
        let (taken, _) = load.end();
        let moment = self.moment()?;
        thread::sleep(Duration::from_secs(1));
        self.machine.run(
            "systemctl stop 'gavel-service@*' 'gavel-worker@*' gavel-backfills; cd / && \
             runuser -u postgres -- psql -q -c 'DROP DATABASE gavel WITH (FORCE)'",
        )?;
        for _ in 0..2 {
            let said = self.machine.run(&self.install_command())?;
            must!(said.contains("the backups are another database's"), "{said}");
        }
        self.machine.run(&format!("/opt/gavel/current/ops/vps/restore '{}'", moment.trim()))?;
        self.all_are_there(&taken)?;
        let said = self.machine.run(&self.install_command())?;
        must!(said.contains("answers; bidctl doctor"), "{said}");
        step.done(format!("all {} bids of before are there", taken.len()));
        Ok(())
    }
}
