//! Which version came when.
use chrono::{DateTime, Utc};
use std::{cell::RefCell, rc::Rc};

/// What all watchers have seen.
#[derive(Default)]
pub(super) struct Seen {
    /// So many have their first answer.
    pub(super) watching: usize,
    /// Of each watcher: versions and when they came.
    arrivals: Vec<Vec<(i64, DateTime<Utc>)>>,
}

/// All watchers are on one thread.
pub(super) type Shared = Rc<RefCell<Seen>>;

/// How late versions came.
pub(super) struct Lateness {
    /// For each version and each watcher, in ms, sorted: until it came, or a newer one.
    pub(super) ms: Vec<f64>,
    /// Of a hundred, so many came themselves.
    pub(super) themselves_percent: f64,
}

impl Seen {
    /// Another watcher: its number.
    pub(super) fn join(&mut self) -> usize {
        self.arrivals.push(Vec::new());
        self.arrivals.len() - 1
    }

    pub(super) fn came(&mut self, watcher: usize, version: i64, at: DateTime<Utc>) {
        self.arrivals[watcher].push((version, at));
    }

    /// Forgets what came so far.
    pub(super) fn clear(&mut self) {
        self.arrivals.iter_mut().for_each(Vec::clear);
    }

    /// Returns how many know this version, or a newer one.
    pub(super) fn know(&self, version: i64) -> usize {
        self.arrivals.iter().filter(|arrivals| arrivals.last().is_some_and(|(came, _)| *came >= version)).count()
    }

    /// Returns how late they came, of those made at these times.
    pub(super) fn lateness(&self, made: &[(i64, DateTime<Utc>)]) -> Lateness {
        let (mut ms, mut themselves) = (Vec::new(), 0_u32);
        for arrivals in &self.arrivals {
            let mut came = arrivals.iter().peekable();
            for (version, made) in made {
                while came.peek().is_some_and(|(came, _)| came < version) {
                    came.next();
                }
                let Some((newer, at)) = came.peek() else { break };
                themselves += u32::from(newer == version);
                let micros = (*at - *made).num_microseconds().and_then(|micros| i32::try_from(micros).ok());
                ms.push(f64::from(micros.unwrap_or(i32::MAX)) / 1_000.0);
            }
        }
        ms.sort_by(f64::total_cmp);
        let all = f64::from(u32::try_from(ms.len()).unwrap_or(u32::MAX));
        Lateness { themselves_percent: 100.0 * f64::from(themselves) / all, ms }
    }
}
