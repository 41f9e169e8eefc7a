//! Workers that die or freeze where a test says, while the test goes on.
//!
//! Each runs in a thread of its own with a tokio runtime of its own. Killed, the runtime is dropped with every task and
//! every socket as they are, which is what kill -9 leaves; frozen, the thread stops, heartbeat included, which is what
//! SIGSTOP or a stalled machine does.
use super::{Harness, Worker};
use crate::{App, base::failpoint, config::Backends, queue::Job};
use anyhow::{Context, bail, ensure};
use std::{sync::mpsc, thread, time::Duration};
use tokio_util::sync::CancellationToken;

/// Where a worker can die with a job: claimed and not begun; a `Tx` job's work, or an [`Attempt::complete`], before and
/// after its commit; an `Io` job done and not completed, which makes it run a second time; completed.
///
/// [`Attempt::complete`]: crate::triggers::job::Attempt::complete
pub const BOUNDARIES: [&str; 5] = ["after_claim", "before_commit", "after_commit", "before_complete", "after_complete"];
/// The boundary of a worker that froze with a claimed job, past its lease, and went on when another had done it.
pub const FROZEN: &str = "frozen";
/// A worker that is told to stop has this long.
const GRACE: Duration = Duration::from_secs(20);

/// Which boundaries a job's run passed, and survived a crash at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survival {
    passed: Vec<&'static str>,
}

impl Survival {
    /// Returns whether a crash there was survived. False where a job of this kind never comes by.
    pub fn passed(&self, boundary: &str) -> bool {
        self.passed.contains(&boundary)
    }
}

impl Harness {
    /// Crashes a worker at each boundary of such a job's run, with a new job each time, lets another worker finish, and
    /// counts: each job must have had its effect once. `effects` counts effects, such as rows written, from zero or
    /// not.
    ///
    /// # Errors
    /// Names the boundary after whose crash the effect was there never or more than once, and how often.
    pub async fn survives<J: Job>(
        &self,
        job: &J,
        effects: impl AsyncFn() -> anyhow::Result<i64>,
    ) -> anyhow::Result<Survival> {
        let mut passed = Vec::new();
        for boundary in BOUNDARIES.into_iter().chain([FROZEN]) {
            let before = effects().await?;
            self.enqueue(job, Duration::ZERO).await?;
            let came_by = if boundary == FROZEN {
                self.freeze(J::KIND, &effects, before).await?
            } else {
                self.kill(J::KIND, boundary).await?
            };
            let dead = self.drain().await?;
            ensure!(dead.is_empty(), "{}: a crash at {boundary} left a dead job: {:?}", J::KIND, dead[0].errors);
            let times = effects().await? - before;
            ensure!(times == 1, "{}: after a crash at {boundary} its effect was there {times} times", J::KIND);
            if came_by {
                passed.push(boundary);
            }
        }
        ensure!(!passed.is_empty(), "{}: no worker came by any boundary", J::KIND);
        Ok(Survival { passed })
    }

    /// Starts a worker that dies there, and waits until it has, or until there was nothing more to do. True when it
    /// died.
    async fn kill(&self, kind: &'static str, boundary: &'static str) -> anyhow::Result<bool> {
        let doomed = CancellationToken::new();
        let script = failpoint::Script::kill(kind, boundary, doomed.clone());
        let worker = Thread::start(self.app, &self.backends, script, doomed.clone());
        self.until("the worker dies or has done everything", || async {
            Ok(doomed.is_cancelled() || self.is_drained().await?)
        })
        .await?;
        let quiet = worker.stop().await;
        // What was completed in a group is gone before the completer comes by its boundary: the drain waits for that.
        if doomed.is_cancelled() { Ok(true) } else { quiet.map(|()| false) }
    }

    /// Freezes a worker with a claimed job until another has done it, then lets it go on.
    async fn freeze(
        &self,
        kind: &'static str,
        effects: &impl AsyncFn() -> anyhow::Result<i64>,
        before: i64,
    ) -> anyhow::Result<bool> {
        let (script, frozen, thaw) = failpoint::Script::freeze(kind, "after_claim");
        let stalled = Thread::start(self.app, &self.backends, script, CancellationToken::new());
        self.until("the worker has claimed the job", || async { Ok(frozen.is_cancelled()) }).await?;
        let other = Worker::start_jobs((self.app)(), &self.backends)?;
        let done = self.until("another worker has done it", || async { Ok(effects().await? > before) }).await;
        let stopped = other.stop(GRACE).await;
        drop(thaw);
        stalled.stop().await?;
        done.and(stopped)?;
        Ok(true)
    }
}

/// A worker in a thread.
struct Thread {
    stop: CancellationToken,
    ended: CancellationToken,
    result: mpsc::Receiver<anyhow::Result<()>>,
}

impl Thread {
    fn start(app: fn() -> App, backends: &Backends, script: failpoint::Script, doomed: CancellationToken) -> Self {
        let (stop, ended) = (CancellationToken::new(), CancellationToken::new());
        let (send, result) = mpsc::channel();
        let (backends, stopping, end) = (backends.clone(), stop.clone(), ended.clone().drop_guard());
        thread::spawn(move || {
            let _ = send.send(run(app, &backends, script, &doomed, &stopping));
            drop(end);
        });
        Self { stop, ended, result }
    }

    async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.ended.cancelled().await;
        self.result.recv().context("the worker's thread panicked")?
    }
}

fn run(
    app: fn() -> App,
    backends: &Backends,
    script: failpoint::Script,
    doomed: &CancellationToken,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    script.perform_on_this_thread();
    let lived = runtime.block_on(async {
        let worker = Worker::start_jobs(app(), backends)?;
        tokio::select! {
            biased;
            () = doomed.cancelled() => bail!("killed"),
            () = stop.cancelled() => {}
        }
        // It may still come by its boundary while it drains.
        tokio::select! {
            biased;
            () = doomed.cancelled() => bail!("killed"),
            stopped = worker.stop(GRACE) => stopped,
        }
    });
    runtime.shutdown_background();
    lived
}
