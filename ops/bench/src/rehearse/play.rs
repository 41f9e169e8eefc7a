//! The phases, one after the other.
use super::{
    filling::Filling,
    load::{Acknowledged, Load, Sample, Seen, took_ms},
    report::{self, Report, percentile},
    rows::{self, ITEMS},
    stage::Stage,
};
use crate::{bids::service::Process, extent, fresh};
use anyhow::{bail, ensure};
use serde_json::json;
use sqlx::PgPool;
use std::time::{Duration, Instant};

/// Bids a second.
const PER_SECOND: u32 = 300;
/// And of programs that are not optimised.
const SMOKE_PER_SECOND: u32 = 100;
/// Time for which it is looked how bids are before, between and after the phases.
const LOOK: Duration = Duration::from_secs(20);
/// A phase that is not over after this never will be.
const PATIENCE: Duration = Duration::from_mins(30);

/// The rehearsal under way.
struct Play<'a> {
    stage: &'a Stage<'a>,
    db: PgPool,
    load: Load,
    filling: Filling,
    phases: Vec<(f64, String)>,
    proofs: Vec<(String, String)>,
}

pub(crate) async fn run(stage: &Stage<'_>) -> anyhow::Result<()> {
    let db = fresh(stage.base, "rehearsal").await?;
    eprintln!("  … the last release's schema, with {} bids", stage.rows);
    stage.bidctl(&stage.old, &["migrate"])?;
    rows::write(&db, stage.rows).await?;
    rows::write_items(&db).await?;
    let before = rows::ranges(&db, "amount_minor").await?;
    let load = Load::begin(ITEMS, per_second());
    let filling = Filling::begin(db.clone(), load.began);
    let mut play = Play { stage, db, load, filling, phases: Vec::new(), proofs: Vec::new() };
    play.evolve(&before).await?;
    play.conclude(&before).await
}

impl Play<'_> {
    fn phase(&mut self, name: &str) {
        eprintln!("  … {name}");
        self.phases.push((self.load.began.elapsed().as_secs_f64(), name.to_owned()));
    }

    fn proved(&mut self, what: &str, how: impl Into<String>) {
        self.proofs.push((what.to_owned(), how.into()));
    }

    async fn evolve(&mut self, before: &[rows::Range]) -> anyhow::Result<()> {
        let stage = self.stage;
        let (old_one, old_two) = (stage.service(&stage.old).await?, stage.service(&stage.old).await?);
        let old_worker = stage.worker(&stage.old, &[]).await?;
        self.load.goes_to([stage.connect(&old_one).await?, stage.connect(&old_two).await?].concat());
        self.phase("before");
        tokio::time::sleep(extent::time(LOOK)).await;

        self.phase("expand");
        stage.bidctl(&stage.new, &["migrate"])?;
        self.phase("both versions");
        let new_one = stage.service(&stage.new).await?;
        let new_worker = stage.worker(&stage.new, &["--also", "run_backfill_chunk,run_online_step"]).await?;
        self.load.goes_to([stage.connect(&old_one).await?, stage.connect(&new_one).await?].concat());
        old_two.drain().await?;
        tokio::time::sleep(extent::time(LOOK)).await;

        self.phase("backfill");
        let began = Instant::now();
        self.start(&new_one, "27")?;
        self.filled(27).await?;
        let took = began.elapsed();
        self.phase("filled");
        self.start(&new_one, "28")?;
        let equal = rows::ranges(&self.db, "max_amount_minor").await?;
        ensure!(equal == before, "the filled column differs from the old one: {equal:?}, not {before:?}");
        self.proved(
            "every range's count, sum and hash is the same in the new column",
            format!("{} ranges", equal.len()),
        );
        self.proved("rows filled", format!("{} in {:.1} s, bids going on", stage.rows, took.as_secs_f64()));
        let refused = stage.refused(&["schema", "contract", "27", "--reason", "too early"])?;
        ensure!(refused.contains("an older version"), "the contract did not see the old version: {refused}");
        self.proved("the contract refuses while the last release lives", first_line(&refused));

        self.phase("old version drained");
        let new_two = stage.service(&stage.new).await?;
        self.load.goes_to([stage.connect(&new_one).await?, stage.connect(&new_two).await?].concat());
        old_one.drain().await?;
        old_worker.drain().await?;
        self.filled(28).await?;

        self.take_away().await?;
        tokio::time::sleep(extent::time(LOOK)).await;
        self.phase("end");
        self.load.goes_to(Vec::new());
        self.counted().await?;
        for process in [new_one, new_two, new_worker] {
            process.drain().await?;
        }
        Ok(())
    }

    /// Out of reach, back, out of reach, and gone.
    async fn take_away(&mut self) -> anyhow::Result<()> {
        self.a_day_goes_by("until its meter has stood still for long").await?;
        for (name, step) in [("contract", "contract"), ("revert", "revert"), ("contract again", "contract")] {
            self.phase(name);
            self.step(&["schema", step, "27", "--reason", "a rehearsal"]).await?;
            tokio::time::sleep(extent::time(LOOK) / 2).await;
        }
        self.a_day_goes_by("until it has baked").await?;
        self.phase("drop");
        self.step(&["schema", "drop", "27", "--reason", "a rehearsal"]).await
    }

    /// Time that nobody wants to wait for: the database's own notes are put back by a day.
    async fn a_day_goes_by(&mut self, why: &str) -> anyhow::Result<()> {
        self.phase("a day later");
        for statement in [
            "UPDATE schema_meters SET changed_at = changed_at - interval '1 day'",
            "UPDATE schema_steps SET taken_at = taken_at - interval '1 day'",
        ] {
            sqlx::query(statement).execute(&self.db).await?;
        }
        self.proved("a day was made to go by", why.to_owned());
        Ok(())
    }

    /// Asks until it is done, as whoever is told what to wait for.
    async fn step(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let until = Instant::now() + Duration::from_mins(2);
        loop {
            match self.stage.bidctl(&self.stage.new, arguments) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > until => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
    }

    /// As it is tuned by default; a smoke test has no time to go slowly, and no figures that mean anything.
    fn start(&self, service: &Process, change: &str) -> anyhow::Result<()> {
        let start = ["schema", "backfill", "start", change, "--reason", "a rehearsal"];
        let quickly = if extent::is_smoke() { &["--p99-ratio", "0"][..] } else { &[] };
        self.stage.ops(service, &[&start, quickly].concat()).map(drop)
    }

    async fn filled(&self, change: i64) -> anyhow::Result<()> {
        let until = Instant::now() + PATIENCE;
        loop {
            let read = "SELECT state, why FROM backfills WHERE change = $1";
            let (state, why): (String, String) = sqlx::query_as(read).bind(change).fetch_one(&self.db).await?;
            match &*state {
                "done" => return Ok(()),
                "running" if Instant::now() < until => tokio::time::sleep(Duration::from_secs(1)).await,
                state => bail!("the backfill of {change} is {state}: {why}"),
            }
        }
    }

    /// Every consumer has heard of every bid, and every user's count is exact.
    async fn counted(&mut self) -> anyhow::Result<()> {
        let until = Instant::now() + Duration::from_mins(2);
        while rows::wrong_counts(&self.db).await? > 0 {
            ensure!(Instant::now() < until, "{} users' counts are wrong", rows::wrong_counts(&self.db).await?);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        self.proved("every user's number of items is what their bids say", "0 of all users differ");
        Ok(())
    }

    async fn conclude(mut self, before: &[rows::Range]) -> anyhow::Result<()> {
        let filling = self.filling.end();
        let Seen { samples, mut acknowledged, refused, errors } = self.load.end().await;
        ensure!(errors.is_empty(), "{} bids failed, such as: {}", errors.len(), errors[0]);
        let proof = format!("{} bids acknowledged, {refused} refused by the rules, 0 errors", acknowledged.len());
        self.proofs.push(("no client saw an error".to_owned(), proof));
        let after = rows::ranges(&self.db, "max_amount_minor").await?;
        ensure!(after == before, "old rows changed: {after:?}, not {before:?}");
        let read = "SELECT bid_id::text, max_amount_minor FROM bids WHERE bidder_id LIKE 'bidder-%'";
        let kept: Vec<(String, i64)> = sqlx::query_as(read).fetch_all(&self.db).await?;
        let mut kept: Vec<_> =
            kept.into_iter().map(|(bid_id, amount_minor)| Acknowledged { bid_id, amount_minor }).collect();
        kept.sort_unstable();
        acknowledged.sort_unstable();
        ensure!(kept == acknowledged, "{} bids in the table, {} acknowledged", kept.len(), acknowledged.len());
        let proof = format!("{} rows, each as it was acknowledged", kept.len());
        self.proofs.push(("the clients' ledger is the table".to_owned(), proof));
        let seconds = report::seconds(&samples, &filling);
        let report = Report {
            figures: figures(&samples, &self.phases, self.stage.rows),
            seconds,
            phases: self.phases,
            proofs: self.proofs,
        };
        report.write(self.stage.out)?;
        for (what, how) in &report.proofs {
            println!("{what}: {how}");
        }
        println!("{:#}", report.figures);
        println!("{}/rehearsal.html", self.stage.out);
        Ok(())
    }
}

fn per_second() -> u32 {
    if extent::is_smoke() { SMOKE_PER_SECOND } else { PER_SECOND }
}

/// Of the whole, and of the backfill beside what was before.
fn figures(samples: &[Sample], phases: &[(f64, String)], rows: i64) -> serde_json::Value {
    let begin = |name: &str| phases.iter().find(|(_, phase)| phase == name).map_or(0.0, |(at, _)| *at);
    let within = |from: f64, until: f64| took_ms(samples, from..until);
    // The later half of each: the earlier one begins with what the programs do at their start.
    let before = within(begin("before").midpoint(begin("expand")), begin("expand"));
    let both = within(begin("both versions").midpoint(begin("backfill")), begin("backfill"));
    let during = within(begin("backfill"), begin("filled"));
    let all = within(0.0, f64::INFINITY);
    let (p99_before, p99_both, p99_during) = (percentile(&before, 99), percentile(&both, 99), percentile(&during, 99));
    json!({
        "rows": rows, "bids": all.len(), "bids_per_second": per_second(),
        "p50_before_ms": percentile(&before, 50), "p50_during_ms": percentile(&during, 50),
        "p99_before_ms": p99_before, "p99_during_ms": p99_during, "p99_during_to_before": p99_during / p99_before,
        "p99_both_versions_ms": p99_both, "p99_during_to_both_versions": p99_during / p99_both,
        "longest_stall_ms": all.last(), "backfill_s": begin("filled") - begin("backfill"),
        "longest_of_contract_ms": within(begin("contract"), begin("end")).last(),
    })
}

fn first_line(text: &str) -> String {
    text.lines().find(|line| line.contains("refused")).unwrap_or_default().to_owned()
}
