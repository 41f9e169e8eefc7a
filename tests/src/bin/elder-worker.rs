//! Gavel's worker as the release before the change of bids' amounts would be, had it known of changes at all: it needs
//! the old form.
use gavel::schema::{EXPAND, PROGRAMS, WIDE_BID_AMOUNTS};
use gavel_runtime::{
    app::Chosen,
    changes::Sources,
    config::{Backends, Env, ProcessConfig},
    process,
};
use sqlx::migrate::Migrator;
use std::{borrow::Cow, sync::LazyLock};

static NOTHING: Migrator = Migrator { migrations: Cow::Borrowed(&[]), ..Migrator::DEFAULT };
static BEFORE: LazyLock<Migrator> = LazyLock::new(|| {
    let older = EXPAND.iter().filter(|file| file.version < WIDE_BID_AMOUNTS).cloned().collect();
    Migrator { migrations: Cow::Owned(older), ..Migrator::DEFAULT }
});

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut env = Env::from_process();
    let backends = Backends::from_env(&mut env);
    let config = ProcessConfig::of_worker(&mut env);
    env.finish()?;
    let known = Sources { expand: &BEFORE, backfill: &NOTHING, contract: &NOTHING, drop: &NOTHING };
    let only = Chosen { only: vec!["sweep_receipts".to_owned()], also: Vec::new() };
    process::run_worker(gavel::app().changes(known, PROGRAMS), "bid-worker", &backends, &config, &only).await
}
