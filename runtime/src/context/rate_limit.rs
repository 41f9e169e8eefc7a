//! How often requests may come: changes from one caller and about one key, reads from one caller or, without a token,
//! from one address. What comes faster is refused at once, with the time after which it would not be.
use crate::{Class, Error, Result, base::client::ClientNetwork, config::AdmissionLimits};
use governor::{
    DefaultKeyedRateLimiter, Quota,
    clock::{Clock, DefaultClock},
};
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZeroU32,
};

/// The rates of one process. Keys are remembered by their hashes, as long as it makes a difference.
pub(crate) struct RateLimits {
    changes_of_caller: Option<RateLimit>,
    changes_of_key: Option<RateLimit>,
    reads_of_caller: Option<RateLimit>,
    reads_of_network: Option<RateLimit>,
    /// Signatures of tokens that were not seen before.
    checks_of_network: Option<RateLimit>,
    clock: DefaultClock,
}

struct RateLimit {
    per_second: NonZeroU32,
    limiter: DefaultKeyedRateLimiter<u64>,
}

impl RateLimit {
    /// None where 0: without a limit. Twice as many may come at once.
    fn of(per_second: u32) -> Option<Self> {
        let per_second = NonZeroU32::new(per_second)?;
        let quota =
            Quota::per_second(per_second).allow_burst(per_second.saturating_mul(NonZeroU32::MIN.saturating_add(1)));
        Some(Self { per_second, limiter: DefaultKeyedRateLimiter::keyed(quota) })
    }
}

impl RateLimits {
    pub(crate) fn new(limits: &AdmissionLimits) -> Self {
        Self {
            changes_of_caller: RateLimit::of(limits.changes_per_caller),
            changes_of_key: RateLimit::of(limits.changes_per_key),
            reads_of_caller: RateLimit::of(limits.reads_per_caller),
            reads_of_network: RateLimit::of(limits.reads_per_address),
            checks_of_network: RateLimit::of(limits.reads_per_address),
            clock: DefaultClock::default(),
        }
    }

    /// Counts a change that this caller asks for.
    pub(crate) fn change(&self, subject: &str) -> Result<()> {
        self.count(self.changes_of_caller.as_ref(), &subject, "calls a second from one caller")
    }

    /// Counts a change about that key.
    pub(crate) fn change_about(&self, key: &impl Hash) -> Result<()> {
        self.count(self.changes_of_key.as_ref(), key, "calls a second about the same")
    }

    /// Counts a read of this caller; without one, of that address.
    pub(crate) fn read(&self, subject: Option<&str>, client: ClientNetwork) -> Result<()> {
        match subject {
            Some(subject) => self.count(self.reads_of_caller.as_ref(), &subject, "reads a second from one caller"),
            // Over the operators' listener.
            None if client == ClientNetwork::NONE => Ok(()),
            None => {
                let limited = self.count(self.reads_of_network.as_ref(), &client, "reads a second from one address");
                limited.map_err(|error| error.with_hint("those of a caller with a token are counted apart"))
            }
        }
    }

    /// Counts the check of a token that was not seen before.
    pub(crate) fn check_of_token(&self, client: ClientNetwork) -> Result<()> {
        let limit = self.checks_of_network.as_ref().filter(|_| client != ClientNetwork::NONE);
        self.count(limit, &client, "new tokens a second from one address")
    }

    fn count(&self, limit: Option<&RateLimit>, what: &impl Hash, of: &str) -> Result<()> {
        let Some(RateLimit { per_second, limiter }) = limit else { return Ok(()) };
        let mut hasher = DefaultHasher::new();
        what.hash(&mut hasher);
        limiter.check_key(&hasher.finish()).map_err(|until| {
            let message = format!("more than {per_second} {of}; try again later");
            let error = Error::new(Class::Exhausted, message).with_reason("RATE_EXCEEDED");
            error.with_retry_after(until.wait_time_from(self.clock.now()))
        })
    }

    /// Forgets keys that have not been used for a while.
    pub(crate) fn forget(&self) {
        let all = [
            &self.changes_of_caller,
            &self.changes_of_key,
            &self.reads_of_caller,
            &self.reads_of_network,
            &self.checks_of_network,
        ];
        all.into_iter().flatten().for_each(|limit| limit.limiter.retain_recent());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    const NONE: AdmissionLimits = AdmissionLimits {
        changes_per_caller: 0,
        changes_per_key: 0,
        reads_per_caller: 0,
        reads_per_address: 0,
        streams_per_caller: 0,
        streams_per_address: 0,
    };

    fn network(address: &str) -> ClientNetwork {
        ClientNetwork::of(address.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn each_caller_and_each_key_has_a_rate_of_its_own_and_is_told_when_to_try_again() {
        let rates = RateLimits::new(&AdmissionLimits { changes_per_caller: 2, ..NONE });
        for _ in 0..4 {
            rates.change("ann").unwrap();
        }
        let refused = rates.change("ann").unwrap_err();
        assert_eq!(refused.class(), Class::Exhausted);
        assert!(refused.retry_after().is_some_and(|delay| delay.as_millis() <= 500), "{refused:?}");
        rates.change("bob").unwrap();
        for _ in 0..1_000 {
            rates.change_about(&"a").unwrap();
        }
    }

    #[test]
    fn reads_without_a_token_are_counted_by_address_and_those_with_one_by_caller() {
        let rates = RateLimits::new(&AdmissionLimits { reads_per_caller: 1, reads_per_address: 1, ..NONE });
        let (one, other) = (network("192.0.2.1"), network("2001:db8::1"));
        for _ in 0..2 {
            rates.read(None, one).unwrap();
        }
        assert!(rates.read(None, one).unwrap_err().message().contains("from one address"));
        rates.read(Some("ann"), one).unwrap();
        rates.read(None, other).unwrap();
        rates.read(None, network("2001:db8::2")).unwrap();
        assert!(rates.read(None, network("2001:db8::3")).is_err(), "the same customer");
    }
}
