//! Who may come in: as many at a time as each handler takes, so often as each caller may ask, and so many streams as
//! leave room for others. Nobody queues: who can't come in is told at once.
use super::rate_limit::RateLimits;
use crate::{
    Class, Error, Invocation, Result,
    base::{
        Caller, Seldom,
        client::ClientNetwork,
        concurrency_limit::{ConcurrencyLimit, Taken},
        spec::Spec,
    },
    config::AdmissionLimits,
    telemetry::Metrics,
};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Whoever is refused because all places are taken is asked to wait this long.
pub(crate) const BUSY: Duration = Duration::from_millis(200);
/// Of a handler's streams, this part is for callers with a token: whoever has none leaves it free.
const RESERVED: usize = 4;

/// What one process lets in.
pub(crate) struct Admission {
    handlers: HashMap<&'static str, Places>,
    pub(crate) rates: RateLimits,
    limits: AdmissionLimits,
    /// All open streams.
    streams: ConcurrencyLimit<Origin>,
    /// Those without a token, by their handler.
    anonymous: ConcurrencyLimit<&'static str>,
    metrics: Arc<Metrics>,
}

/// The places of a handler.
struct Places {
    free: Arc<Semaphore>,
    rejected: Seldom,
    unfinished: Seldom,
}

/// Whom a stream is counted against.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Origin {
    Caller(String),
    Network(ClientNetwork),
}

/// A stream's place, given back when this is dropped.
pub(crate) struct StreamPlace {
    _permit: OwnedSemaphorePermit,
    _of_origin: Taken<Origin>,
    _of_anonymous: Option<Taken<&'static str>>,
}

impl Places {
    fn of(spec: &Spec) -> Self {
        Self {
            free: Arc::new(Semaphore::new(spec.limits.concurrency)),
            rejected: Seldom::new(),
            unfinished: Seldom::new(),
        }
    }
}

impl Admission {
    pub(crate) fn new(specs: &[&'static Spec], limits: &AdmissionLimits, metrics: Arc<Metrics>) -> Self {
        Self {
            handlers: specs.iter().map(|spec| (spec.name, Places::of(spec))).collect(),
            rates: RateLimits::new(limits),
            limits: *limits,
            streams: ConcurrencyLimit::default(),
            anonymous: ConcurrencyLimit::default(),
            metrics,
        }
    }

    /// Lets one more run of the handler in.
    pub(crate) fn admit(&self, spec: &Spec) -> Result<OwnedSemaphorePermit> {
        let unregistered = || Error::internal(anyhow::anyhow!("handler {} is not registered", spec.name));
        let places = self.handlers.get(spec.name).ok_or_else(unregistered)?;
        places.free.clone().try_acquire_owned().map_err(|_| full(spec))
    }

    /// Lets one more read in.
    pub(crate) fn admit_read(
        &self,
        spec: &Spec,
        caller: Option<&Caller>,
        client: ClientNetwork,
    ) -> Result<OwnedSemaphorePermit> {
        self.rates.read(caller.map(|caller| caller.subject.as_str()), client)?;
        self.admit(spec)
    }

    /// Lets one more stream in.
    pub(crate) fn admit_stream(
        &self,
        spec: &Spec,
        caller: Option<&Caller>,
        client: ClientNetwork,
    ) -> Result<StreamPlace> {
        let permit = self.admit_read(spec, caller, client)?;
        let (origin, most, whose) = if let Some(caller) = caller {
            (Origin::Caller(caller.subject.clone()), self.limits.streams_per_caller, "one caller")
        } else {
            // Of a handler with few places one address takes half at most of those that are for strangers.
            let half = (without_token(spec) / 2).max(1);
            let most = self.limits.streams_per_address.min(half);
            (Origin::Network(client), most, "one address without a token")
        };
        let exhausted =
            |message| Error::new(Class::Exhausted, message).with_retry_after(BUSY).with_reason("STREAMS_EXCEEDED");
        let of_origin = self.streams.take(origin, most);
        let of_origin =
            of_origin.map_err(|open| exhausted(format!("{open} streams of {whose} are open; allowed: {most}")))?;
        let of_anonymous = caller.is_none().then(|| self.anonymous.take(spec.name, without_token(spec)));
        let of_anonymous = of_anonymous.transpose().map_err(|open| {
            let name = spec.name;
            exhausted(format!("{open} streams of {name} without a token are open; the rest is for callers with one"))
        })?;
        Ok(StreamPlace { _permit: permit, _of_origin: of_origin, _of_anonymous: of_anonymous })
    }

    /// The refusal of a call that would find no place, before anything of it was read. It is only a look: who sends
    /// slowly must not hold a place meanwhile.
    pub(crate) fn refusal_unread(&self, spec: &'static Spec) -> Option<Error> {
        let places = self.handlers.get(spec.name)?;
        (places.free.available_permits() == 0).then(|| self.count(spec, full(spec)))
    }

    /// Counts a call that was rejected; gives the error back. It is said once a second: rejecting must cost next to
    /// nothing.
    pub(crate) fn rejected(&self, spec: &'static Spec, invocation: &Invocation, error: Error) -> Error {
        tracing::debug!(handler = spec.name, correlation_id = invocation.correlation_id, %error, "the call is rejected");
        self.count(spec, error)
    }

    /// Counts a read that came to nothing; said once a second as well.
    pub(crate) fn not_finished(&self, spec: &'static Spec, invocation: &Invocation, error: &Error) {
        tracing::debug!(handler = spec.name, correlation_id = invocation.correlation_id, %error, "the read did not finish");
        if let Some(reads) = self.handlers.get(spec.name).and_then(|places| places.unfinished.count()) {
            tracing::warn!(handler = spec.name, reads, %error, "reads do not finish");
        }
    }

    fn count(&self, spec: &'static Spec, error: Error) -> Error {
        let is_limit = error.class() == Class::Exhausted;
        if is_limit {
            self.metrics.rejected(spec.name, error.reason().unwrap_or("OTHER"));
        }
        match self.handlers.get(spec.name).and_then(|places| places.rejected.count()) {
            Some(rejected) if is_limit => {
                tracing::warn!(handler = spec.name, rejected, %error, "calls are rejected: a limit is reached");
            }
            Some(rejected) => tracing::info!(handler = spec.name, rejected, %error, "calls are rejected"),
            None => {}
        }
        error
    }
}

/// Returns how many of a handler's streams are for strangers.
fn without_token(spec: &Spec) -> u32 {
    u32::try_from(spec.limits.concurrency - spec.limits.concurrency / RESERVED).unwrap_or(u32::MAX)
}

fn full(spec: &Spec) -> Error {
    let most = spec.limits.concurrency;
    let error = Error::new(Class::Exhausted, format!("{} runs {most} times at once already; try again", spec.name));
    error.with_retry_after(BUSY).with_reason("CONCURRENCY_EXCEEDED")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::spec::{Limits, Trigger};
    use std::net::IpAddr;

    static STREAM: Spec = Spec::new("watch", Trigger::Rpc("demo.Demo/Watch")).limits(Limits::DEFAULT.concurrency(8));

    fn from(last: u8) -> ClientNetwork {
        ClientNetwork::of(IpAddr::from([10, 0, 0, last]))
    }

    fn admission(streams_per_address: u32) -> Admission {
        let limits = AdmissionLimits {
            changes_per_caller: 0,
            changes_per_key: 0,
            reads_per_caller: 0,
            reads_per_address: 0,
            streams_per_caller: 0,
            streams_per_address,
        };
        Admission::new(&[&STREAM], &limits, Arc::new(Metrics::new().unwrap()))
    }

    #[test]
    fn strangers_from_everywhere_leave_places_for_callers_with_a_token() {
        let admission = admission(100);
        let strangers: Vec<_> = (0..6).map(|n| admission.admit_stream(&STREAM, None, from(n)).unwrap()).collect();
        let refused = admission.admit_stream(&STREAM, None, from(7)).err().unwrap();
        assert!(refused.message().contains("the rest is for callers with one"), "{refused}");
        let caller = Caller { subject: "ann".to_owned(), roles: Arc::default(), expires_at: i64::MAX };
        let _ann = admission.admit_stream(&STREAM, Some(&caller), from(7)).unwrap();
        drop(strangers);
        assert!(admission.admit_stream(&STREAM, None, from(7)).is_ok(), "places are given back");
    }

    #[test]
    fn one_address_takes_half_of_what_strangers_may() {
        let admission = admission(100);
        let _mine: Vec<_> = (0..3).map(|_| admission.admit_stream(&STREAM, None, from(1)).unwrap()).collect();
        let refused = admission.admit_stream(&STREAM, None, from(1)).err().unwrap();
        assert!(refused.retry_after().is_some() && refused.message().contains("allowed: 3"), "{refused}");
        assert!(admission.admit_stream(&STREAM, None, from(2)).is_ok());
    }
}
