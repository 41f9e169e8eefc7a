//! Tracked tasks: a drain waits for every one of them.
use std::{future::Future, time::Duration};
use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Spawns tasks and waits for them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    draining: CancellationToken,
    closing: CancellationToken,
}

impl Tasks {
    /// Runs `work` to its end, whoever stops waiting for it.
    pub(crate) fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.tracker.spawn(work)
    }

    /// Set when the process begins to drain: loops take no new work from then on.
    pub(crate) fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// Set when the listener closes, after the balancer has noticed the drain: streams end then and not before, or their clients
    /// would come back to this very process.
    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// Waits `pause`, or less when a drain begins. Returns whether to go on.
    pub(crate) async fn pause(&self, pause: Duration) -> bool {
        tokio::select! {
            () = self.draining.cancelled() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }

    /// Starts the drain and waits for every task, at most `grace`. Returns whether all ended.
    pub(crate) async fn drain(&self, grace: Duration) -> bool {
        self.draining.cancel();
        self.closing.cancel();
        self.tracker.close();
        tokio::time::timeout(grace, self.tracker.wait()).await.is_ok()
    }
}
