//! Workers by the depth of their queue, through KEDA, while the database fails and KEDA's operator is started again.
use super::{DATABASE, Run, eventually, step};
use crate::progress::run_quietly;
use anyhow::{Context, ensure};
use gavel_programs::postgresql_bin;
use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// Auctions that end at once, in each of so many rounds.
const AUCTIONS: u32 = 1_000;
const ROUNDS: u32 = 12;
/// The database is away for so long: longer than KEDA's interval.
const OUTAGE: Duration = Duration::from_secs(20);

impl Run {
    pub(super) fn scale(&mut self) -> anyhow::Result<()> {
        eventually("one worker, while there is nothing to do", || self.workers().map(|workers| workers == 1))?;
        let mut scaled = Duration::ZERO;
        step("workers by the depth of their queue", || {
            let began = Instant::now();
            for _ in 0..ROUNDS {
                self.end_auctions()?;
                thread::sleep(Duration::from_millis(500));
                if self.workers()? > 1 && scaled.is_zero() {
                    scaled = began.elapsed();
                }
            }
            eventually("there are several workers", || Ok(self.number("bid-worker", "/status/readyReplicas")? > 1))?;
            let most = self.workers()?;
            Ok(format!(
                "1 → {most} workers, the first more after {:.0} s; {} auctions have ended",
                scaled.as_secs_f64(),
                AUCTIONS * ROUNDS
            ))
        })?;
        step("an outage of the database, and KEDA's operator started again in it", || {
            for _ in 0..ROUNDS {
                self.end_auctions()?;
            }
            let before = self.workers()?;
            self.servers.stop_postgres();
            let until = Instant::now() + OUTAGE;
            self.plane.restart_operator(&self.node.hosts)?;
            while Instant::now() < until {
                let now = self.workers()?;
                ensure!(
                    now >= before,
                    "{now} workers of {before}: nothing is known of the queue, and some were taken away"
                );
                thread::sleep(Duration::from_millis(500));
            }
            self.servers.start_postgres_again()?;
            Ok(format!("{} s without a database; {before} workers stayed", OUTAGE.as_secs()))
        })?;
        step("until everything is done, and one worker is left", || {
            let drained =
                eventually("every auction is closed", || Ok(self.count("items WHERE closed_at IS NULL")? == 0))?;
            eventually("every event is published", || Ok(self.count("outbox")? == 0))?;
            eventually("one worker is left", || Ok(self.workers()? == 1))?;
            let (all, dead) = (self.count("items")?, self.count("dead_jobs")?);
            // Creating an item is its first version, closing it the second.
            let twice = self.count("items WHERE version <> 2")?;
            ensure!(all == i64::from(2 * AUCTIONS * ROUNDS), "{all} auctions");
            ensure!(dead == 0, "{dead} jobs are dead");
            ensure!(twice == 0, "{twice} auctions were closed more than once");
            Ok(format!("{all} auctions closed, {:.0} s after the outage; no job is dead", drained.as_secs_f64()))
        })
    }

    fn workers(&self) -> anyhow::Result<i64> {
        self.number("bid-worker", "/spec/replicas")
    }

    /// Auctions whose time is over, each with the job that closes it.
    fn end_auctions(&self) -> anyhow::Result<()> {
        self.sql(&format!(
            "WITH ended AS (
               INSERT INTO items (item_id, seller_id, title, currency, start_price_minor, ladder_version, starts_at, ends_at)
               SELECT gen_random_uuid(), 'sam', 'A lot', 'EUR', 1000, 1, now() - interval '1 hour', now()
               FROM generate_series(1, {AUCTIONS}) RETURNING item_id)
             SELECT mq_insert(array_agg(ROW(gen_random_uuid(), interval '0', 20, interval '1 s', 'close_item', '', NULL,
                                            false, 'close_item', json_build_object('item_id', item_id)::text, NULL)::mq_new_t))
             FROM ended"
        ))
        .map(drop)
    }

    fn count(&self, of: &str) -> anyhow::Result<i64> {
        let said = self.sql(&format!("SELECT count(*) FROM {of}"))?;
        said.trim().parse().with_context(|| said.clone())
    }

    fn sql(&self, statement: &str) -> anyhow::Result<String> {
        let mut psql = Command::new(postgresql_bin().context("PostgreSQL")?.join("psql"));
        psql.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--command", statement, "--dbname"]);
        run_quietly(psql.arg(self.servers.urls.database(DATABASE)))
    }
}
