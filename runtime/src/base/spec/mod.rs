//! What every registration has in common: a name, a trigger and limits, checked at start-up.
mod batch;
mod pool_kind;
mod queue;

pub use batch::{Batch, MAX_BATCH, MAX_BATCH_BYTES, MAX_LANES};
pub use queue::{Durability, MAX_GROUP, Queue, Rate};

pub(crate) use pool_kind::PoolKind;

use super::cron::CronSchedule;
use std::{fmt, time::Duration};

/// The longest time-out a handler may ask for.
pub const MAX_TIMEOUT: Duration = Duration::from_mins(10);
/// And a leased job, which holds no transaction open meanwhile.
pub const MAX_LEASED_TIMEOUT: Duration = Duration::from_hours(24);
/// The most tries a job or message may ask for.
pub const MAX_RETRIES: u32 = 100;
/// The highest concurrency a handler may ask for in one process.
pub const MAX_CONCURRENCY: usize = 65_536;
/// The largest request of a call that says nothing else, in bytes.
pub const DEFAULT_MAX_REQUEST: usize = 64 * 1_024;
/// The largest request that a call may take, in bytes.
pub const MOST_MAX_REQUEST: usize = 16 << 20;

/// What a handler may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// One run may take this long.
    pub timeout: Duration,
    /// Tries after the first that failed with [`Class::Internal`](crate::Class::Internal) (jobs: with anything worth
    /// retrying). For calls: how often a transaction rolled back over a concurrent change is run again.
    pub retries: u32,
    /// Runs at the same time, in one process.
    pub concurrency: usize,
}

impl Limits {
    /// Two seconds, three retries, 64 at once.
    pub const DEFAULT: Self = Self { timeout: Duration::from_secs(2), retries: 3, concurrency: 64 };

    /// With another time-out.
    #[must_use]
    pub const fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// With another number of retries.
    #[must_use]
    pub const fn retries(self, retries: u32) -> Self {
        Self { retries, ..self }
    }

    /// With another concurrency.
    #[must_use]
    pub const fn concurrency(self, concurrency: usize) -> Self {
        Self { concurrency, ..self }
    }
}

/// What makes a handler run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// A gRPC call of this method, `package.Service/Method`.
    Rpc(&'static str),
    /// An HTTP GET of this path.
    Http(&'static str),
    /// A job of the kind that is the handler's name.
    Job(Queue),
    /// A message with one of these routing keys (`*` one word, `#` any number).
    Message(&'static [&'static str]),
    /// A message with one of these routing keys, in every service process.
    Broadcast(&'static [&'static str]),
    /// The clock, once across all replicas.
    Schedule(CronSchedule),
    /// A loop in every replica, pausing this long when there is nothing to do.
    Poll(Duration),
    /// Jobs of the crate sqlxmq on these channels.
    Sqlxmq(&'static [&'static str]),
}

impl Trigger {
    /// The kind's name, as in logs and metrics.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Rpc(_) => "rpc",
            Self::Http(_) => "http",
            Self::Job(_) => "job",
            Self::Message(_) => "message",
            Self::Broadcast(_) => "broadcast",
            Self::Schedule(_) => "schedule",
            Self::Poll(_) => "poll",
            Self::Sqlxmq(_) => "sqlxmq",
        }
    }

    /// Returns whether a worker process runs it; otherwise a service process does.
    pub const fn is_workers(self) -> bool {
        !matches!(self, Self::Rpc(_) | Self::Http(_) | Self::Broadcast(_))
    }
}

impl Trigger {
    /// The pool whose connections its transactions are on.
    pub(crate) const fn pool_kind(self) -> PoolKind {
        match self {
            Self::Rpc(_) | Self::Http(_) | Self::Broadcast(_) => PoolKind::Calls,
            Self::Job(_) | Self::Message(_) | Self::Schedule(_) | Self::Sqlxmq(_) => PoolKind::Jobs,
            Self::Poll(_) => PoolKind::Relay,
        }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.trigger)?;
        self.batch.map_or(Ok(()), |batch| write!(f, ", batches up to {}", batch.size))
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rpc(on) | Self::Http(on) => write!(f, "{} {on}", self.kind()),
            Self::Job(queue) => write!(f, "job {queue}"),
            Self::Message(keys) | Self::Broadcast(keys) | Self::Sqlxmq(keys) => {
                write!(f, "{} {}", self.kind(), keys.join(", "))
            }
            Self::Schedule(cron) => write!(f, "schedule {cron}"),
            Self::Poll(idle) => write!(f, "poll every {idle:?} when idle"),
        }
    }
}

/// A handler as registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec {
    /// Unique, `snake_case`, stable for ever: it names queues, job kinds, receipts and metrics.
    pub name: &'static str,
    /// What makes it run.
    pub trigger: Trigger,
    /// What it may use.
    pub limits: Limits,
    /// The way calls or messages are combined; none where each has a transaction of its own. Jobs have their queue's batch.
    pub batch: Option<Batch>,
    /// Which listener leads to it, where it is a call or a route.
    pub listener: Listener,
    /// What follows where a job of it is cancelled or discarded, for whoever is about to; empty where nothing much
    /// does.
    pub consequence: &'static str,
    /// True if it is told of its call, and may say something beside the answer ([`Call`](crate::base::call::Call)).
    pub sees_call: bool,
    /// True if backfills wait while its calls take long.
    pub is_protected: bool,
    /// True if only a worker runs it that is started for it.
    pub only_when_named: bool,
    /// How old may be what it reads.
    pub freshness: Freshness,
    /// The largest request, in bytes, before and after decompression, where it is a call.
    pub max_request: usize,
}

/// How old may be what a handler reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// All that was committed before.
    Current,
    /// Some moments: from a standby, where there is one.
    MayLag,
}

/// Which listeners lead to a call or a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Listener {
    /// The public's, and the operators' as well.
    Public,
    /// The operators' alone, to which no gateway leads.
    Operators,
}

impl Spec {
    /// A handler with the default limits.
    pub const fn new(name: &'static str, trigger: Trigger) -> Self {
        Self {
            name,
            trigger,
            limits: Limits::DEFAULT,
            batch: None,
            listener: Listener::Public,
            consequence: "",
            sees_call: false,
            is_protected: false,
            only_when_named: false,
            freshness: Freshness::Current,
            max_request: DEFAULT_MAX_REQUEST,
        }
    }

    /// Told of its call: headers, method, query; and able to add headers and trailers to the answer.
    #[must_use]
    pub const fn with_call(self) -> Self {
        Self { sees_call: true, ..self }
    }

    /// Protected: backfills wait while its calls take long.
    #[must_use]
    pub const fn protected(self) -> Self {
        Self { is_protected: true, ..self }
    }

    /// Run only by workers that are started for it by name.
    #[must_use]
    pub const fn only_when_named(self) -> Self {
        Self { only_when_named: true, ..self }
    }

    /// Reading from a standby, where there is one that follows closely; what fails there is read again.
    #[must_use]
    pub const fn may_lag(self) -> Self {
        Self { freshness: Freshness::MayLag, ..self }
    }

    /// With another largest request, in bytes.
    #[must_use]
    pub const fn max_request(self, bytes: usize) -> Self {
        Self { max_request: bytes, ..self }
    }

    /// Batched like that.
    #[must_use]
    pub const fn batched(self, batch: Batch) -> Self {
        Self { batch: Some(batch), ..self }
    }

    /// With what follows where a job of it is cancelled or discarded.
    #[must_use]
    pub const fn consequence(self, consequence: &'static str) -> Self {
        Self { consequence, ..self }
    }

    /// For operators, and whatever watches over the process.
    #[must_use]
    pub const fn for_operators(self) -> Self {
        Self { listener: Listener::Operators, ..self }
    }

    /// With another time-out.
    #[must_use]
    pub const fn timeout(self, timeout: Duration) -> Self {
        Self { limits: self.limits.timeout(timeout), ..self }
    }

    /// With another concurrency.
    #[must_use]
    pub const fn concurrency(self, concurrency: usize) -> Self {
        Self { limits: self.limits.concurrency(concurrency), ..self }
    }

    /// With other limits.
    #[must_use]
    pub const fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Everything that is wrong with this registration by itself.
    pub fn validate(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut say = |fault: String| faults.push(format!("handler {:?}: {fault}", self.name));
        if !is_snake_case(self.name) {
            say("its name must be 1 to 48 of a-z 0-9 _, starting with a letter".to_owned());
        }
        let Limits { timeout, retries, concurrency } = self.limits;
        let is_leased = matches!(self.trigger, Trigger::Job(queue) if queue.durability != Durability::Tx);
        let longest = if is_leased { MAX_LEASED_TIMEOUT } else { MAX_TIMEOUT };
        if timeout.is_zero() || timeout > longest {
            say(format!("time-out {timeout:?} is out of range; allowed: above 0 up to {longest:?}"));
        }
        if retries > MAX_RETRIES {
            say(format!("{retries} retries are too many; allowed: up to {MAX_RETRIES}"));
        }
        if concurrency == 0 || concurrency > MAX_CONCURRENCY {
            say(format!("concurrency {concurrency} is out of range; allowed: 1 to {MAX_CONCURRENCY}"));
        }
        if self.max_request == 0 || self.max_request > MOST_MAX_REQUEST {
            say(format!("requests of {} bytes are out of range; allowed: 1 to {MOST_MAX_REQUEST}", self.max_request));
        }
        if let Some(batch) = self.batch {
            batch.validate(&mut say);
        }
        if self.freshness == Freshness::MayLag && !matches!(self.trigger, Trigger::Rpc(_) | Trigger::Http(_)) {
            say(format!("{} can't read from a standby; allowed: rpc and http that read", self.trigger.kind()));
        }
        match self.trigger {
            Trigger::Rpc(method) if method.split('/').filter(|part| !part.is_empty()).count() != 2 => {
                say(format!("{method:?} is no method; allowed: package.Service/Method"));
            }
            Trigger::Http(path) if !path.starts_with('/') => say(format!("path {path:?} must start with /")),
            Trigger::Message([]) | Trigger::Broadcast([]) => say("it has no routing key".to_owned()),
            Trigger::Job(queue) => queue.validate(say),
            Trigger::Schedule(cron) => {
                if let Some(fault) = cron.validate() {
                    say(fault);
                }
            }
            Trigger::Poll(idle) if idle < Duration::from_millis(1) => {
                say(format!("an idle pause of {idle:?} is too short; allowed: from 1 ms"));
            }
            _ => {}
        }
        faults
    }
}

fn is_snake_case(name: &str) -> bool {
    (1..=48).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_of(name: &'static str, trigger: Trigger, limits: Limits) -> Vec<String> {
        Spec { limits, ..Spec::new(name, trigger) }.validate()
    }

    #[test]
    fn each_fault_names_the_handler_and_what_is_allowed() {
        assert_eq!(problems_of("fine_1", Trigger::Job(Queue::TX), Limits::DEFAULT), Vec::<String>::new());
        let all =
            problems_of("Bad", Trigger::Rpc("x"), Limits { timeout: Duration::ZERO, retries: 101, concurrency: 0 });
        assert_eq!(all.len(), 5, "{all:#?}");
        assert!(
            all.iter().all(|fault| fault.contains("\"Bad\"") && fault.contains("must") || fault.contains("allowed"))
        );
    }

    #[test]
    fn a_batch_that_could_take_nothing_is_a_fault() {
        for batch in [
            Batch::DEFAULT.size(0),
            Batch::DEFAULT.size(MAX_BATCH + 1),
            Batch::DEFAULT.bytes(0),
            Batch::DEFAULT.lanes(0),
            Batch::DEFAULT.lanes(MAX_LANES + 1),
            Batch::DEFAULT.per_key(0),
        ] {
            let faults = Spec::new("a", Trigger::Rpc("a.B/C")).batched(batch).validate();
            assert_eq!(faults.len(), 1, "{batch:?}: {faults:?}");
        }
    }

    #[test]
    fn each_trigger_is_checked() {
        let bad_group = Durability::Group(Duration::from_millis(6));
        for trigger in [
            Trigger::Http("x"),
            Trigger::Message(&[]),
            Trigger::Broadcast(&[]),
            Trigger::Schedule(CronSchedule::cron("whenever")),
            Trigger::Schedule(CronSchedule::cron("@daily").zone("Mars/Olympus")),
            Trigger::Poll(Duration::from_micros(1)),
            Trigger::Job(Queue::TX.batch(0)),
            Trigger::Job(Queue::TX.across(0)),
            Trigger::Job(Queue::TX.rate(0, Duration::from_secs(1))),
            Trigger::Job(Queue::IO.durability(bad_group)),
        ] {
            let faults = problems_of("a", trigger, Limits::DEFAULT);
            assert_eq!(faults.len(), 1, "{trigger}: {faults:?}");
        }
    }
}
