//! Tracked tasks: a drain waits for every one of them.
use futures_util::future::BoxFuture;
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{runtime::Handle, task::JoinHandle};
use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

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

    /// `work`, where it is awaited, for as long as that lasts; when whoever awaits it gives up in the middle, it goes
    /// on in a task of its own. A client that hangs up never leaves a transaction half done, and a client that waits,
    /// as almost all do, costs no task.
    pub(crate) fn enduring<T: Send + 'static>(&self, work: BoxFuture<'static, T>) -> Enduring<T> {
        Enduring { work: Some(work), begun: false, token: self.tracker.token() }
    }

    /// Set when the process begins to drain: loops take no new work from then on.
    pub(crate) fn draining(&self) -> &CancellationToken {
        &self.draining
    }

    /// Set when the listener closes, after the balancer has noticed the drain: streams end then and not before, or
    /// their clients would come back to this very process.
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

/// See [`Tasks::enduring`].
pub(crate) struct Enduring<T: Send + 'static> {
    /// None once it has ended, or panicked.
    work: Option<BoxFuture<'static, T>>,
    begun: bool,
    /// A drain waits for it from the beginning, whoever it is that awaits it.
    token: TaskTrackerToken,
}

impl<T: Send + 'static> Future for Enduring<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        self.begun = true;
        // Not in its place meanwhile: what has panicked must not go on.
        let Some(mut work) = self.work.take() else { return Poll::Pending };
        let polled = work.as_mut().poll(context);
        if polled.is_pending() {
            self.work = Some(work);
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Enduring<T> {
    fn drop(&mut self) {
        let Some(work) = self.work.take().filter(|_| self.begun) else { return };
        // There is none when the process itself is ending.
        if let Ok(handle) = Handle::try_current() {
            self.token.task_tracker().spawn_on(work, &handle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{FutureExt, poll};
    use std::pin::pin;
    use tokio::sync::oneshot;

    /// Work that ends when the first is sent something, and then says so over the second.
    fn work() -> (BoxFuture<'static, u32>, oneshot::Sender<u32>, oneshot::Receiver<u32>) {
        let ((go, gone), (done, ended)) = (oneshot::channel(), oneshot::channel());
        let work = async move {
            let number = gone.await.unwrap_or(0);
            let _ = done.send(number);
            number
        };
        (work.boxed(), go, ended)
    }

    #[tokio::test]
    async fn work_that_is_waited_for_gives_its_result() {
        let (work, go, _) = work();
        go.send(7).unwrap();
        assert_eq!(Tasks::default().enduring(work).await, 7);
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_any_more_goes_on_and_a_drain_waits_for_it() {
        let (tasks, (work, go, ended)) = (Tasks::default(), work());
        {
            let mut enduring = pin!(tasks.enduring(work));
            assert!(poll!(&mut enduring).is_pending());
        }
        assert!(!tasks.drain(Duration::from_millis(50)).await, "it is still under way");
        go.send(7).unwrap();
        assert_eq!(ended.await, Ok(7));
        assert!(tasks.drain(Duration::from_secs(10)).await);
    }

    #[tokio::test]
    async fn a_drain_that_waits_already_waits_for_work_that_is_given_up_meanwhile() {
        let (tasks, (work, go, ended)) = (Tasks::default(), work());
        let mut enduring = Box::pin(tasks.enduring(work));
        assert!(poll!(&mut enduring).is_pending());
        let mut drained = pin!(tasks.drain(Duration::from_secs(10)));
        assert!(poll!(&mut drained).is_pending());
        drop(enduring);
        assert!(poll!(&mut drained).is_pending(), "the work is still under way");
        go.send(7).unwrap();
        assert!(drained.await);
        assert_eq!(ended.await, Ok(7));
    }

    #[tokio::test]
    async fn work_that_was_not_begun_is_not() {
        let (work, _go, ended) = work();
        drop(Tasks::default().enduring(work));
        assert!(ended.await.is_err(), "it is gone");
    }
}
