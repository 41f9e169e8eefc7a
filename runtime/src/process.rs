//! The life of a process: check the schema, serve, drain on SIGTERM.
use crate::{
    App, Runtime,
    app::Registration,
    auth::{self, DevLogin, Verifier},
    config::{Backends, PoolSizes, ProcessConfig, TokenConfig},
    db::{self, Uses},
    gauges,
    health::{self, Needs},
    job, live,
    message::parking,
    schema,
    server::{self, Routes},
    spec::Trigger,
    telemetry::{self, Backlog},
};
use anyhow::{Context, bail};
use std::{
    process::ExitCode,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// At start the database is waited for this long: in a fresh deployment everything starts at once.
const DATABASE_PATIENCE: Duration = Duration::from_secs(30);
/// Callers who have been quiet are forgotten so often.
const FORGET_EVERY: Duration = Duration::from_mins(1);
/// How often the backlog's gauges are sampled.
const SAMPLE_EVERY: Duration = Duration::from_secs(2);

/// How a process ends: what went wrong on standard error, in one piece, and an exit code.
pub fn exit(process: &str, result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{process}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a process that serves routes, until SIGTERM or SIGINT.
/// `process` is its name in logs, in PostgreSQL and in RabbitMQ.
pub async fn run_service(
    app: App,
    process: &'static str,
    backends: &Backends,
    config: &ProcessConfig,
    tokens: &TokenConfig,
) -> anyhow::Result<()> {
    let verifier = Verifier::new(tokens.keys.read().await?, &tokens.issuer, &tokens.audience);
    telemetry::init(process)?;
    let app = app.checked()?;
    let runtime = app.runtime(backends, process, Some(verifier))?;
    let mut routes = app.routes(&runtime)?;
    if let Some(signing_key) = tokens.dev_signing_key.clone() {
        let (issuer, audience) = (tokens.issuer.clone(), tokens.audience.clone());
        routes.all = auth::mount_dev_login(routes.all, DevLogin { signing_key, issuer, audience });
    }
    let keys = tokens.keys.clone();
    run_until_signal(runtime, config, (Needs::Database, Uses::Service, backends.pools), routes, |runtime| {
        runtime.tasks().spawn(auth::refresh(runtime.clone(), keys));
        runtime.tasks().spawn(live::run(runtime.clone()));
        let paced = runtime.clone();
        runtime.tasks().spawn(async move {
            while paced.tasks().pause(FORGET_EVERY).await {
                paced.paces().forget();
            }
        });
    })
    .await
}

/// Runs a process that runs jobs, consumers and schedules, until SIGTERM or SIGINT.
///
/// `only` names the handlers to run; all of a worker's, where it is empty.
/// `process` is its name in logs, in PostgreSQL and in RabbitMQ.
pub async fn run_worker(
    app: App,
    process: &'static str,
    backends: &Backends,
    config: &ProcessConfig,
    only: &[String],
) -> anyhow::Result<()> {
    telemetry::init(process)?;
    let app = app.checked()?;
    let chosen = app.workers(only)?;
    let runtime = app.runtime(backends, process, None)?;
    let needs = (Needs::DatabaseAndBroker, Uses::Worker, backends.pools);
    run_until_signal(runtime, config, needs, Routes::default(), |runtime| {
        start(runtime, &chosen);
    })
    .await
}

fn start(runtime: &Runtime, chosen: &[Registration]) {
    for registration in chosen {
        tracing::info!(handler = registration.spec.name, trigger = %registration.spec.trigger, "handler started");
        registration.start(runtime);
    }
    job::start(runtime);
    if chosen.iter().any(|registration| matches!(registration.spec.trigger, Trigger::Message(_))) {
        runtime.tasks().spawn(parking::run(runtime.clone()));
    }
    // Early, so that what is published before a consumer's first connection finds its queue.
    let publisher = runtime.publisher().clone();
    runtime.tasks().spawn(async move {
        if let Err(error) = publisher.check().await {
            tracing::warn!(error = format!("{error:#}"), "the broker can't be reached yet");
        }
    });
    let sampler = runtime.clone();
    runtime.tasks().spawn(async move {
        while sampler.tasks().pause(SAMPLE_EVERY).await {
            if let Err(error) = sample_backlog(&sampler).await {
                tracing::warn!(%error, "the backlog can't be sampled");
                sampler.metrics().backlog.forget();
            }
        }
    });
}

async fn run_until_signal(
    runtime: Runtime,
    config: &ProcessConfig,
    (needs, uses, pools): (Needs, Uses, PoolSizes),
    mut routes: Routes,
    start: impl FnOnce(&Runtime),
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        fit = require_schema(&runtime) => fit?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    }
    db::check_sizes(&runtime.pools().reads, uses, &pools).await?;
    let listener = server::bind(config)?;
    tracing::info!(address = %listener.address()?, "ready");
    start(&runtime);
    runtime.tasks().spawn(gauges::run(runtime.clone()));
    let close_listener = CancellationToken::new();
    routes.all = server::operational_routes(&runtime, needs, routes.all);
    let (settings, stop) = (config.clone(), close_listener.clone());
    let serving = runtime.clone().tasks().spawn(async move { server::serve(listener, routes, &settings, stop).await });
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: draining"),
        _ = interrupt.recv() => tracing::info!("SIGINT: draining"),
    }
    drain(&runtime, config, &close_listener).await?;
    serving.await??;
    tracing::info!("drained");
    Ok(())
}

/// Readiness off, consumers and loops stop; after the balancer has noticed, the listener closes; what is under way is
/// finished.
async fn drain(runtime: &Runtime, config: &ProcessConfig, close_listener: &CancellationToken) -> anyhow::Result<()> {
    let until = Instant::now() + config.grace;
    runtime.tasks().draining().cancel();
    tokio::time::sleep(config.drain_delay).await;
    close_listener.cancel();
    runtime.tasks().closing().cancel();
    if !runtime.tasks().drain(until.saturating_duration_since(Instant::now())).await {
        bail!("work was still under way after {:?} (GAVEL_GRACE_MS)", config.grace);
    }
    runtime.pools().close().await;
    Ok(())
}

/// Waits for the database, and refuses a schema that lacks something.
async fn require_schema(runtime: &Runtime) -> anyhow::Result<()> {
    let until = Instant::now() + DATABASE_PATIENCE;
    let gaps = loop {
        match schema::gaps(&runtime.pools().reads, runtime.migrator()).await {
            Ok(gaps) => break gaps,
            Err(error) if Instant::now() < until => {
                tracing::warn!(%error, "waiting for the database");
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Err(error) => return Err(error).context("the database can't be reached (DATABASE_URL)"),
        }
    };
    if !gaps.is_empty() {
        bail!("the schema is older than this binary needs: {}. Apply the migrations first", health::joined(&gaps));
    }
    Ok(())
}

/// Bounded counts, each along an index: a backlog of millions costs no more to see than one of ten thousand, be it due or not.
pub(crate) async fn sample_backlog(runtime: &Runtime) -> Result<(), sqlx::Error> {
    let kinds: Vec<String> = runtime.jobs().kinds().keys().map(|kind| (*kind).to_owned()).collect();
    let sample = sqlx::query!(
        r#"SELECT
             (SELECT count(*) FROM (SELECT 1 FROM outbox LIMIT 10001) o) AS "outbox_events!",
             (SELECT coalesce(extract(epoch FROM clock_timestamp() - min(created_at)) * 1000, 0)::bigint
              FROM (SELECT created_at FROM outbox ORDER BY outbox_id LIMIT 1) o) AS "outbox_oldest_age_ms!",
             (SELECT count(*) FROM (
                SELECT FROM unnest($1::text[]) k (kind) CROSS JOIN generate_series(0, 3) p CROSS JOIN LATERAL (
                  SELECT FROM mq_msgs m WHERE m.channel_name = k.kind AND m.priority = p AND m.attempt_at <= now()
                    AND NOT m.blocked
                    AND (m.after_message_id IS NULL OR m.after_message_id = '00000000-0000-0000-0000-000000000000')
                  LIMIT 10001) j LIMIT 10001) d) AS "jobs_due!",
             (SELECT count(*) FROM (SELECT 1 FROM dead_jobs LIMIT 10001) d) AS "jobs_dead!""#,
        &kinds,
    )
    .fetch_one(&runtime.pools().reads)
    .await?;
    let backlog = &runtime.metrics().backlog;
    backlog.outbox_events.store(sample.outbox_events, Ordering::Relaxed);
    backlog.outbox_oldest_age_ms.store(sample.outbox_oldest_age_ms, Ordering::Relaxed);
    backlog.jobs_due.store(sample.jobs_due, Ordering::Relaxed);
    backlog.jobs_dead.store(sample.jobs_dead, Ordering::Relaxed);
    Ok(())
}

impl Backlog {
    /// What can't be sampled is not reported: an error must not look like an empty queue.
    fn forget(&self) {
        for gauge in [&self.outbox_events, &self.outbox_oldest_age_ms, &self.jobs_due, &self.jobs_dead] {
            gauge.store(-1, Ordering::Relaxed);
        }
    }
}
