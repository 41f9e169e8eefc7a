//! Who may come in: as many at a time as each handler takes, so often as each caller may ask, and so many streams as leave room
//! for others. Nobody queues: who can't come in is told at once.
use crate::{
    Class, Error, Invocation, Result,
    auth::Caller,
    client::ClientNetwork,
    config::AdmissionLimits,
    rate_limit::RateLimits,
    spec::Spec,
    telemetry::{Metrics, Seldom},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
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
    streams: Arc<Mutex<Streams>>,
    metrics: Arc<Metrics>,
}

/// The places of a handler.
struct Places {
    free: Arc<Semaphore>,
    rejected: Seldom,
    unfinished: Seldom,
}

/// How many streams are open.
#[derive(Default)]
struct Streams {
    by_origin: HashMap<Origin, u32>,
    /// Without a token, by handler.
    anonymous: HashMap<&'static str, usize>,
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
    handler: &'static str,
    origin: Origin,
    streams: Arc<Mutex<Streams>>,
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
            streams: Arc::default(),
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
            let half = u32::try_from(without_token(spec) / 2).unwrap_or(u32::MAX).max(1);
            let most = self.limits.streams_per_address.min(half);
            (Origin::Network(client), most, "one address without a token")
        };
        let mut streams = lock(&self.streams);
        let own = streams.by_origin.get(&origin).copied().unwrap_or_default();
        if most > 0 && own >= most {
            let message = format!("{own} streams of {whose} are open; allowed: {most}");
            return Err(Error::new(Class::Exhausted, message).with_retry_after(BUSY));
        }
        if caller.is_none() {
            let open = streams.anonymous.entry(spec.name).or_default();
            let most = without_token(spec);
            if *open >= most {
                let message = format!(
                    "{open} streams of {} without a token are open; the rest is for callers with one",
                    spec.name
                );
                return Err(Error::new(Class::Exhausted, message).with_retry_after(BUSY));
            }
            *open += 1;
        }
        *streams.by_origin.entry(origin.clone()).or_default() += 1;
        drop(streams);
        Ok(StreamPlace { _permit: permit, handler: spec.name, origin, streams: self.streams.clone() })
    }

    /// The refusal of a call that would find no place, before anything of it was read. It is only a look: who sends slowly
    /// must not hold a place meanwhile.
    pub(crate) fn refusal_unread(&self, spec: &'static Spec) -> Option<Error> {
        let places = self.handlers.get(spec.name)?;
        (places.free.available_permits() == 0).then(|| self.count(spec, full(spec)))
    }

    /// Counts a call that was rejected; gives the error back. It is said once a second: rejecting must cost next to nothing.
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
            self.metrics.turned_away(spec.name);
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

fn lock(streams: &Mutex<Streams>) -> MutexGuard<'_, Streams> {
    streams.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut streams = lock(&self.streams);
        if let Origin::Network(_) = self.origin
            && let Some(open) = streams.anonymous.get_mut(self.handler)
        {
            *open -= 1;
        }
        if let Some(open) = streams.by_origin.get_mut(&self.origin) {
            *open -= 1;
            if *open == 0 {
                streams.by_origin.remove(&self.origin);
            }
        }
    }
}

/// How many of a handler's streams are for strangers.
fn without_token(spec: &Spec) -> usize {
    spec.limits.concurrency - spec.limits.concurrency / RESERVED
}

fn full(spec: &Spec) -> Error {
    let most = spec.limits.concurrency;
    let error = Error::new(Class::Exhausted, format!("{} runs {most} times at once already; try again", spec.name));
    error.with_retry_after(BUSY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Limits, Trigger};
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
