//! What every registration has in common: a name, a trigger and limits, checked at start-up.
use std::{fmt, time::Duration};

/// The longest time-out a handler may ask for.
pub const MAX_TIMEOUT: Duration = Duration::from_mins(10);
/// The most tries a job or message may ask for.
pub const MAX_RETRIES: u32 = 100;
/// The highest concurrency a handler may ask for in one process.
pub const MAX_CONCURRENCY: usize = 4_096;

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
    Job,
    /// A message with one of these routing keys (`*` one word, `#` any number).
    Message(&'static [&'static str]),
    /// The clock, once across all replicas.
    Schedule(Duration),
    /// A loop in every replica, pausing this long when there is nothing to do.
    Poll(Duration),
}

impl Trigger {
    /// The kind's name, as in logs and metrics.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Rpc(_) => "rpc",
            Self::Http(_) => "http",
            Self::Job => "job",
            Self::Message(_) => "message",
            Self::Schedule(_) => "schedule",
            Self::Poll(_) => "poll",
        }
    }

    /// Whether a worker process runs it; otherwise a service process does.
    pub const fn is_workers(self) -> bool {
        !matches!(self, Self::Rpc(_) | Self::Http(_))
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rpc(on) | Self::Http(on) => write!(f, "{} {on}", self.kind()),
            Self::Job => f.write_str("job"),
            Self::Message(keys) => write!(f, "message {}", keys.join(", ")),
            Self::Schedule(every) => write!(f, "schedule every {every:?}"),
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
}

impl Spec {
    /// A handler with the default limits.
    pub const fn new(name: &'static str, trigger: Trigger) -> Self {
        Self { name, trigger, limits: Limits::DEFAULT }
    }

    /// With other limits.
    #[must_use]
    pub const fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Everything that is wrong with this registration by itself.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut say = |fault: String| faults.push(format!("handler {:?}: {fault}", self.name));
        if !is_snake_case(self.name) {
            say("its name must be 1 to 48 of a-z 0-9 _, starting with a letter".to_owned());
        }
        let Limits { timeout, retries, concurrency } = self.limits;
        if timeout.is_zero() || timeout > MAX_TIMEOUT {
            say(format!("time-out {timeout:?} is out of range; allowed: above 0 up to {MAX_TIMEOUT:?}"));
        }
        if retries > MAX_RETRIES {
            say(format!("{retries} retries are too many; allowed: up to {MAX_RETRIES}"));
        }
        if concurrency == 0 || concurrency > MAX_CONCURRENCY {
            say(format!("concurrency {concurrency} is out of range; allowed: 1 to {MAX_CONCURRENCY}"));
        }
        match self.trigger {
            Trigger::Rpc(method) if method.split('/').filter(|part| !part.is_empty()).count() != 2 => {
                say(format!("{method:?} is no method; allowed: package.Service/Method"));
            }
            Trigger::Http(path) if !path.starts_with('/') => say(format!("path {path:?} must start with /")),
            Trigger::Message([]) => say("it has no routing key".to_owned()),
            Trigger::Schedule(every) if every < Duration::from_secs(1) => {
                say(format!("an interval of {every:?} is too short; allowed: from 1 s"));
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

    fn faults(name: &'static str, trigger: Trigger, limits: Limits) -> Vec<String> {
        Spec { name, trigger, limits }.faults()
    }

    #[test]
    fn each_fault_names_the_handler_and_what_is_allowed() {
        assert_eq!(faults("fine_1", Trigger::Job, Limits::DEFAULT), Vec::<String>::new());
        let all = faults("Bad", Trigger::Rpc("x"), Limits { timeout: Duration::ZERO, retries: 101, concurrency: 0 });
        assert_eq!(all.len(), 5, "{all:#?}");
        assert!(
            all.iter().all(|fault| fault.contains("\"Bad\"") && fault.contains("must") || fault.contains("allowed"))
        );
    }

    #[test]
    fn each_trigger_is_checked() {
        let short = Duration::from_micros(1);
        for trigger in [Trigger::Http("x"), Trigger::Message(&[]), Trigger::Schedule(short), Trigger::Poll(short)] {
            assert_eq!(faults("a", trigger, Limits::DEFAULT).len(), 1, "{trigger}");
        }
    }
}
