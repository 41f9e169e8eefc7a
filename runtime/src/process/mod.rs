//! The life of a process: check the schema, serve, drain on SIGTERM.
mod archive;
mod gauges;
pub(crate) mod health;
mod keys;
mod presence;
mod resources;
mod sampled;
mod schema_gauges;
mod standby;

use crate::{
    App, Runtime,
    app::{Chosen, Registration},
    auth::{self, DevLogin, Verifier},
    base::spec::Trigger,
    config::{Backends, KeySource, ProcessConfig, TokenConfig},
    context::runtime::Role,
    edge::BodyLimits,
    postgres::{self, State, Uses},
    schema,
    server::{self, Routes},
    telemetry::{self, Backlog, traces},
    triggers::{
        job, live,
        message::{self, parking},
        reconcile,
    },
};
use anyhow::bail;
use health::{Looker, Needs};
use std::{
    process::ExitCode,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Callers who have been quiet are forgotten so often.
const FORGET_EVERY: Duration = Duration::from_mins(1);
/// Interval at which the backlog's gauges are sampled.
const SAMPLE_EVERY: Duration = Duration::from_secs(2);

/// Returns how a process ends: what went wrong on standard error, in one piece, and an exit code.
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
    telemetry::init(process)?;
    config.warn();
    traces::start(process, &config.traces)?;
    let app = app.checked()?;
    let runtime = app.runtime(backends, process, Role::Service(Box::new(Verifier::new(tokens))))?;
    let bodies = BodyLimits::new(config.patience.body, config.connections.body_bytes);
    let (mut public, operators) = app.routes(&runtime, &bodies)?;
    if let Some(signing_key) = tokens.dev_signing_key.clone() {
        let (issuer, audience) = (tokens.issuer.clone(), tokens.audience.clone());
        let login = DevLogin { signing_key, issuer, audience, withheld: app.operators_roles() };
        public.all = auth::mount_dev_login(public.all, login);
    }
    let process = Process {
        needs: Needs::Database,
        uses: Uses::Service,
        keys: Some(tokens.keys.clone()),
        reconcilers: app.reconcilers().to_vec(),
    };
    process
        .run(runtime, backends, config, (public, operators), |runtime| {
            runtime.tasks().spawn(keys::refresh(runtime.clone(), tokens.keys.clone()));
            runtime.tasks().spawn(live::run(runtime.clone()));
            runtime.tasks().spawn(standby::run(runtime.clone()));
            let limited = runtime.clone();
            runtime.tasks().spawn(async move {
                while limited.tasks().pause(FORGET_EVERY).await {
                    limited.admission().rates.forget();
                }
            });
        })
        .await
}

/// Runs a process that runs jobs, consumers and schedules, until SIGTERM or SIGINT.
///
/// `chosen` names the handlers to run.
/// `process` is its name in logs, in PostgreSQL and in RabbitMQ.
pub async fn run_worker(
    app: App,
    process: &'static str,
    backends: &Backends,
    config: &ProcessConfig,
    chosen: &Chosen,
) -> anyhow::Result<()> {
    telemetry::init(process)?;
    config.warn();
    traces::start(process, &config.traces)?;
    let app = app.checked()?;
    let chosen = app.workers(chosen)?;
    let runtime = app.runtime(backends, process, Role::Worker)?;
    let process = Process {
        needs: Needs::DatabaseAndBroker,
        uses: Uses::Worker,
        keys: None,
        reconcilers: app.reconcilers().to_vec(),
    };
    process
        .run(runtime, backends, config, (Routes::default(), Routes::default()), |runtime| start(runtime, &chosen))
        .await
}

fn start(runtime: &Runtime, chosen: &[Registration]) {
    for registration in chosen {
        tracing::info!(handler = registration.spec.name, trigger = %registration.spec.trigger, "handler started");
        registration.start(runtime);
    }
    job::start(runtime);
    runtime.tasks().spawn(archive::run(runtime.clone()));
    let consumers: Vec<_> = chosen.iter().filter_map(Registration::consumer).collect();
    if !consumers.is_empty() {
        runtime.tasks().spawn(parking::run(runtime.clone()));
        runtime.tasks().spawn(message::return_unknown(runtime.clone(), consumers));
    }
    // Events come from those who relay them.
    if chosen.iter().any(|registration| matches!(registration.spec.trigger, Trigger::Poll(_))) {
        runtime.tasks().spawn(live::send_beacons(runtime.clone()));
    }
    // Early, so that what is published before a consumer's first connection finds its queue.
    let publisher = runtime.publisher().clone();
    runtime.tasks().spawn(async move {
        if let Err(error) = publisher.check().await {
            tracing::warn!(%error, "the broker can't be reached yet");
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

/// What a process can't do without.
struct Process {
    needs: Needs,
    uses: Uses,
    /// What tokens are checked with, where it takes calls.
    keys: Option<KeySource>,
    reconcilers: Vec<reconcile::ErasedReconciler>,
}

impl Process {
    /// Runs until SIGTERM or SIGINT.
    async fn run(
        self,
        runtime: Runtime,
        backends: &Backends,
        config: &ProcessConfig,
        (mut public, mut operators): (Routes, Routes),
        start: impl FnOnce(&Runtime),
    ) -> anyhow::Result<()> {
        let mut looker = Looker::new(self.needs);
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let begun = tokio::select! {
            fit = self.prepare(&runtime, backends, &mut looker) => fit.and_then(|()| server::bind(config)).map(Some),
            _ = terminate.recv() => Ok(None),
            _ = interrupt.recv() => Ok(None),
        };
        let listeners = match begun {
            Ok(Some(listeners)) => listeners,
            ended => {
                // It may be written down, so that no contract was taken meanwhile.
                presence::leave(&runtime).await;
                return ended.map(drop);
            }
        };
        let (address, ops_address) = listeners.addresses()?;
        tracing::info!(address = address.map(|address| address.to_string()), %ops_address, "ready");
        start(&runtime);
        health::observe(&runtime);
        runtime.tasks().spawn(health::run(runtime.clone(), looker));
        let is_outdated = CancellationToken::new();
        runtime.tasks().spawn(presence::run(runtime.clone(), is_outdated.clone()));
        runtime.tasks().spawn(gauges::run(runtime.clone()));
        runtime.tasks().spawn(schema_gauges::run(runtime.clone()));
        runtime.tasks().spawn(reconcile::run(runtime.clone(), self.reconcilers));
        let close_listeners = CancellationToken::new();
        public.open = resources::observe(&runtime);
        public.all = server::health_routes(&runtime, public.all);
        operators.all = server::metrics_route(&runtime, server::health_routes(&runtime, operators.all));
        let (settings, stop) = (config.clone(), close_listeners.clone());
        let serving = async move { listeners.serve(public, operators, &settings, stop).await };
        let serving = runtime.tasks().spawn(serving);
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: draining"),
            _ = interrupt.recv() => tracing::info!("SIGINT: draining"),
            () = is_outdated.cancelled() => {
                drain(&runtime, config, &close_listeners).await?;
                bail!("the schema's form that this program needs is gone: start a newer version");
            }
        }
        drain(&runtime, config, &close_listeners).await?;
        serving.await??;
        tracing::info!("drained");
        Ok(())
    }

    /// Everything that must be so before anything is served.
    async fn prepare(&self, runtime: &Runtime, backends: &Backends, looker: &mut Looker) -> anyhow::Result<()> {
        require_schema(runtime).await?;
        postgres::refuse_shared_sessions(&runtime.pools().connector).await?;
        presence::register(runtime).await?;
        postgres::check_sizes(&runtime.pools().reads, self.uses, &backends.pools).await?;
        if let Some(source) = &self.keys {
            keys::read_at_start(runtime, source).await?;
        }
        looker.note(runtime).await;
        Ok(())
    }
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
    presence::leave(runtime).await;
    traces::finish().await;
    Ok(())
}

/// Waits for the database, and refuses a schema that lacks something.
async fn require_schema(runtime: &Runtime) -> anyhow::Result<()> {
    let mut conn = None;
    let gaps = postgres::patiently(async || {
        let (state, has_moved) = runtime.pools().connector.look(&mut conn).await;
        if has_moved {
            runtime.pools().follow();
        }
        match (state, &mut conn) {
            (State::Up, Some(conn)) => Ok(schema::gaps(conn, runtime.migrator()).await?),
            (State::Up, None) => bail!("the database does not answer"),
            (State::Busy(why) | State::Down(why), _) => bail!(why),
        }
    });
    let gaps = gaps.await?;
    if !gaps.is_empty() {
        bail!("the schema is older than this binary needs: {}. Apply the migrations first", health::joined(&gaps));
    }
    Ok(())
}

/// Bounded counts, each along an index: a backlog of millions costs no more to see than one of ten thousand, be it due
/// or not.
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
             (SELECT count(*) FROM (SELECT 1 FROM dead_jobs LIMIT 10001) d) AS "jobs_dead!",
             (SELECT count(*) FROM (SELECT 1 FROM parked_messages LIMIT 10001) p) AS "messages_parked!""#,
        &kinds,
    )
    .fetch_one(&runtime.pools().reads)
    .await?;
    let backlog = &runtime.metrics().backlog;
    backlog.outbox_events.store(sample.outbox_events, Ordering::Relaxed);
    backlog.outbox_oldest_age_ms.store(sample.outbox_oldest_age_ms, Ordering::Relaxed);
    backlog.jobs_due.store(sample.jobs_due, Ordering::Relaxed);
    backlog.jobs_dead.store(sample.jobs_dead, Ordering::Relaxed);
    backlog.messages_parked.store(sample.messages_parked, Ordering::Relaxed);
    Ok(())
}

impl Backlog {
    /// What can't be sampled is not reported: an error must not look like an empty queue.
    fn forget(&self) {
        let gauges =
            [&self.outbox_events, &self.outbox_oldest_age_ms, &self.jobs_due, &self.jobs_dead, &self.messages_parked];
        for gauge in gauges {
            gauge.store(-1, Ordering::Relaxed);
        }
    }
}
