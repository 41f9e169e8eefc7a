//! Who takes part in a bid, and the processors' time that each has taken.
use crate::bids::service::{Process, Stat, processor_seconds};
use anyhow::Context;
use sqlx::PgPool;
use std::{fs, process};

pub(super) const NAMES: [&str; 5] = ["PostgreSQL", "bid-service", "bid-worker", "RabbitMQ", "Redis"];

/// The processes of one run.
pub(super) struct Parties<'a> {
    postmaster: u32,
    ours: [&'a Process; 2],
    rabbitmq: u32,
    redis: u32,
}

/// Seconds of the processors' time, by [`NAMES`].
#[derive(Debug, Clone, Default)]
pub(super) struct Spent([f64; NAMES.len()]);

impl Spent {
    pub(super) fn of(&self, party: usize) -> f64 {
        self.0[party]
    }

    pub(super) fn all(&self) -> f64 {
        self.0.iter().sum()
    }

    pub(super) fn since(&self, before: &Self) -> Self {
        let mut since = self.0;
        since.iter_mut().zip(before.0).for_each(|(now, before)| *now -= before);
        Self(since)
    }
}

impl<'a> Parties<'a> {
    /// The servers are those that were started by whoever started this process.
    pub(super) async fn find(pool: &PgPool, ours: [&'a Process; 2]) -> anyhow::Result<Self> {
        let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(pool).await?;
        let postmaster = parent(u32::try_from(backend)?).context("PostgreSQL runs here")?;
        let home = parent(process::id()).context("somebody has started this")?;
        Ok(Self { postmaster, ours, rabbitmq: descendant(home, "beam.smp")?, redis: descendant(home, "redis-server")? })
    }

    pub(super) fn spent(&self) -> anyhow::Result<Spent> {
        let [service, worker] = self.ours;
        Ok(Spent([
            self.postgresql()?,
            service.processor_seconds()?,
            worker.processor_seconds()?,
            processor_seconds(self.rabbitmq)?,
            processor_seconds(self.redis)?,
        ]))
    }

    /// Each session is a process; those that have ended are in their parent's account.
    fn postgresql(&self) -> anyhow::Result<f64> {
        let living = processes().filter(|process| parent(*process) == Some(self.postmaster));
        // One may end between two looks.
        let living: f64 = living.filter_map(|process| processor_seconds(process).ok()).sum();
        Ok(living + Stat::of(self.postmaster).context("PostgreSQL has ended")?.and_ended_s()?)
    }
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn parent(process: u32) -> Option<u32> {
    Stat::of(process).ok()?.parent()
}

/// The process of that name which somebody, or somebody of theirs, has started.
fn descendant(of: u32, name: &str) -> anyhow::Result<u32> {
    let is_named =
        |process: &u32| fs::read_to_string(format!("/proc/{process}/comm")).is_ok_and(|comm| comm.trim() == name);
    let is_theirs =
        |process: &u32| std::iter::successors(Some(*process), |process| parent(*process)).any(|one| one == of);
    processes().find(|process| is_named(process) && is_theirs(process)).with_context(|| format!("{name} runs here"))
}
