//! A worker inside the calling process: the same loops that a worker process runs, without its listener.
use crate::{
    App, Invocation, Io, Runtime,
    app::Chosen,
    base::spec::{PoolKind, Trigger},
    config::Backends,
    context::runtime::Role,
    process::health::{self, Looker, Needs},
    triggers::job,
};
use anyhow::bail;
use std::time::Duration;

/// Time for which a caller's own work on a worker's connections may take.
const TIMEOUT: Duration = Duration::from_mins(1);

/// Job and schedule loops of an application, running.
pub struct Worker {
    runtime: Runtime,
}

impl Worker {
    /// Starts every handler that a worker process would. Consumers and relays wait where there is no broker.
    ///
    /// # Errors
    /// When a registration is invalid or the database's URL can't be read.
    pub fn start(app: App, backends: &Backends) -> anyhow::Result<Self> {
        Self::start_those(app, backends, |_| true)
    }

    /// Starts handlers of jobs, and nothing else.
    pub(super) fn start_jobs(app: App, backends: &Backends) -> anyhow::Result<Self> {
        Self::start_those(app, backends, |trigger| matches!(trigger, Trigger::Job(_)))
    }

    fn start_those(app: App, backends: &Backends, which: fn(&Trigger) -> bool) -> anyhow::Result<Self> {
        let app = app.checked()?;
        let runtime = app.runtime(backends, "testing", Role::Worker)?;
        for registration in
            app.workers(&Chosen::default())?.iter().filter(|registration| which(&registration.spec.trigger))
        {
            registration.start(&runtime);
        }
        job::start(&runtime);
        runtime.tasks().spawn(health::run(runtime.clone(), Looker::new(Needs::Database)));
        Ok(Self { runtime })
    }

    /// Returns what an `Io` handler gets: begin a transaction on it to enqueue jobs.
    pub fn io(&self) -> Io {
        Io::new(&self.runtime, PoolKind::Jobs, Invocation::start("test", TIMEOUT))
    }

    /// Drains it as SIGTERM does.
    ///
    /// # Errors
    /// When work was still under way after `grace`.
    pub async fn stop(self, grace: Duration) -> anyhow::Result<()> {
        if !self.runtime.tasks().drain(grace).await {
            bail!("work was still under way after {grace:?}");
        }
        self.runtime.pools().close().await;
        Ok(())
    }
}
