//! How often calls that change something may come: from one caller, and about one key. What comes faster is refused at once, with
//! the time after which it would not be.
use crate::{Class, Error, Result, config::Rates};
use governor::{
    DefaultKeyedRateLimiter, Quota,
    clock::{Clock, DefaultClock},
};
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZeroU32,
};

/// The limits of one process. Keys are remembered by their hashes, as long as it makes a difference.
pub(crate) struct Paces {
    caller: Option<Pace>,
    key: Option<Pace>,
    clock: DefaultClock,
}

struct Pace {
    per_second: NonZeroU32,
    limiter: DefaultKeyedRateLimiter<u64>,
}

impl Pace {
    /// None where 0: without a limit. Twice as many may come at once.
    fn of(per_second: u32) -> Option<Self> {
        let per_second = NonZeroU32::new(per_second)?;
        let quota =
            Quota::per_second(per_second).allow_burst(per_second.saturating_mul(NonZeroU32::MIN.saturating_add(1)));
        Some(Self { per_second, limiter: DefaultKeyedRateLimiter::keyed(quota) })
    }
}

impl Paces {
    pub(crate) fn new(rates: Rates) -> Self {
        Self { caller: Pace::of(rates.per_caller), key: Pace::of(rates.per_key), clock: DefaultClock::default() }
    }

    /// Counts a call of that caller.
    pub(crate) fn caller(&self, subject: &str) -> Result<()> {
        self.count(self.caller.as_ref(), &subject, "from one caller")
    }

    /// Counts a call about that key.
    pub(crate) fn key(&self, key: &impl Hash) -> Result<()> {
        self.count(self.key.as_ref(), key, "about the same")
    }

    fn count(&self, pace: Option<&Pace>, what: &impl Hash, whose: &str) -> Result<()> {
        let Some(Pace { per_second, limiter }) = pace else { return Ok(()) };
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        limiter.check_key(&hasher.finish()).map_err(|until| {
            let message = format!("more than {per_second} calls a second {whose}; try again later");
            Error::new(Class::Exhausted, message).with_retry_after(until.wait_time_from(self.clock.now()))
        })
    }

    /// Forgets keys that have not been used for a while.
    pub(crate) fn forget(&self) {
        for pace in [&self.caller, &self.key].into_iter().flatten() {
            pace.limiter.retain_recent();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_and_each_key_has_a_pace_of_its_own_and_is_told_when_to_try_again() {
        let paces = Paces::new(Rates { per_caller: 2, per_key: 0 });
        for _ in 0..4 {
            paces.caller("ann").unwrap();
        }
        let refused = paces.caller("ann").unwrap_err();
        assert_eq!(refused.class(), Class::Exhausted);
        assert!(refused.retry_after().is_some_and(|delay| delay.as_millis() <= 500), "{refused:?}");
        paces.caller("bob").unwrap();
        for _ in 0..1_000 {
            paces.key(&"a").unwrap();
        }
    }
}
