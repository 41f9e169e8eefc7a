//! Keeps a program running, as an orchestrator would: what ends is started again, and one may kill it as often as one
//! likes. Only what was never ready has failed to start.
use crate::servers::Child;
use std::time::{Duration, Instant};

/// From an end to the next start: the first, and the longest where it ends again and again before it is ready.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// The ends of a program so far.
#[derive(Debug, Default, PartialEq, Eq)]
struct Restarts {
    was_ever_ready: bool,
    in_a_row: u32,
}

impl Restarts {
    fn is_ready(&mut self) {
        *self = Self { was_ever_ready: true, in_a_row: 0 };
    }

    /// Returns how long after its end it is started again; none where it has failed to start.
    fn pause(&mut self) -> Option<Duration> {
        let pause = PAUSES.0.saturating_mul(2_u32.saturating_pow(self.in_a_row)).min(PAUSES.1);
        self.in_a_row += 1;
        self.was_ever_ready.then_some(pause)
    }
}

/// One program that is kept running.
pub(crate) struct Supervised<'a> {
    start: Box<dyn Fn() -> anyhow::Result<Child> + 'a>,
    ready: Box<dyn Fn() -> bool + 'a>,
    state: State,
    restarts: Restarts,
}

enum State {
    Starting(Child),
    Ready(Child),
    Ended { until: Instant },
}

impl<'a> Supervised<'a> {
    /// Starts it.
    pub(crate) fn start(
        start: impl Fn() -> anyhow::Result<Child> + 'a,
        ready: impl Fn() -> bool + 'a,
    ) -> anyhow::Result<Self> {
        let state = State::Starting(start()?);
        Ok(Self { start: Box::new(start), ready: Box::new(ready), state, restarts: Restarts::default() })
    }

    /// Looks at it once, and does what there is to do, without waiting for it.
    ///
    /// # Errors
    /// When it ended and was never ready, with the end of its log.
    pub(crate) fn look(&mut self) -> anyhow::Result<()> {
        let (State::Starting(child) | State::Ready(child)) = &mut self.state else {
            return self.start_again();
        };
        if let Err(error) = child.check() {
            child.stop();
            let Some(pause) = self.restarts.pause() else { return Err(error) };
            let what = error.to_string();
            eprintln!("  ! {}; starting it again", what.split(';').next().unwrap_or_default());
            self.state = State::Ended { until: Instant::now() + pause };
        } else if !self.is_ready() && (self.ready)() {
            self.restarts.is_ready();
            let ended = State::Ended { until: Instant::now() };
            if let State::Starting(child) = std::mem::replace(&mut self.state, ended) {
                self.state = State::Ready(child);
            }
        }
        Ok(())
    }

    fn start_again(&mut self) -> anyhow::Result<()> {
        if matches!(self.state, State::Ended { until } if until <= Instant::now()) {
            self.state = State::Starting((self.start)()?);
        }
        Ok(())
    }

    /// Returns whether it was ready when it was last looked at.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready(_))
    }

    /// Asks it to stop and waits.
    pub(crate) fn stop(self) {
        if let State::Starting(mut child) | State::Ready(mut child) = self.state {
            child.stop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_ready_has_failed_to_start() {
        assert_eq!(Restarts::default().pause(), None);
    }

    #[test]
    fn what_was_ready_once_is_started_again_however_soon_it_ends() {
        let mut restarts = Restarts::default();
        restarts.is_ready();
        for _ in 0..120 {
            assert!(restarts.pause().is_some_and(|pause| pause <= PAUSES.1));
        }
        assert_eq!(restarts.pause(), Some(PAUSES.1), "it ends again and again");
        restarts.is_ready();
        assert_eq!(restarts.pause(), Some(PAUSES.0), "it ran, and was killed");
    }
}
