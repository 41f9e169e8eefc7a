//! The latency of a few calls over the last seconds, as a percentile: what a backfill must not spoil.
use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Buckets for each doubling.
const FINENESS: f64 = 8.0;
/// Up to some minutes, in microseconds.
const BUCKETS: usize = 240;
/// Of fewer calls the slowest is no percentile.
const LEAST: u64 = 20;
/// Counts are begun anew after this; the ones before are still looked at.
const GENERATION: Duration = Duration::from_secs(5);

/// Counts by latency, of this generation and of the one before.
pub(crate) struct Latencies {
    generations: [[AtomicU32; BUCKETS]; 2],
    current: AtomicUsize,
    began: Mutex<Instant>,
}

impl Default for Latencies {
    fn default() -> Self {
        let empty = || std::array::from_fn(|_| AtomicU32::new(0));
        Self { generations: [empty(), empty()], current: AtomicUsize::new(0), began: Mutex::new(Instant::now()) }
    }
}

impl Latencies {
    pub(crate) fn record(&self, took: Duration) {
        self.generations[self.current.load(Relaxed)][bucket(took)].fetch_add(1, Relaxed);
    }

    /// Milliseconds that 99 of 100 calls took at most; none of too few calls.
    pub(crate) fn p99_ms(&self) -> Option<f64> {
        let counts: Vec<_> = (0..BUCKETS)
            .map(|n| self.generations.iter().map(|counts| u64::from(counts[n].load(Relaxed))).sum())
            .collect();
        self.turn();
        percentile(&counts, 99)
    }

    fn turn(&self) {
        let mut began = self.began.lock().unwrap_or_else(PoisonError::into_inner);
        if began.elapsed() >= GENERATION {
            *began = Instant::now();
            let next = 1 - self.current.load(Relaxed);
            self.generations[next].iter().for_each(|count| count.store(0, Relaxed));
            self.current.store(next, Relaxed);
        }
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a bucket")]
fn bucket(took: Duration) -> usize {
    let us = took.as_micros().max(1) as f64;
    ((us.log2() * FINENESS) as usize).min(BUCKETS - 1)
}

/// The upper end of a bucket, in milliseconds.
#[expect(clippy::cast_precision_loss, reason = "a small number")]
fn upper_ms(bucket: usize) -> f64 {
    ((bucket + 1) as f64 / FINENESS).exp2() / 1_000.0
}

fn percentile(counts: &[u64], percent: u64) -> Option<f64> {
    let all: u64 = counts.iter().sum();
    let wanted = (all * percent).div_ceil(100);
    let mut seen = 0;
    let found = counts.iter().position(|count| {
        seen += count;
        seen >= wanted
    });
    found.filter(|_| all >= LEAST).map(upper_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_hundredth_is_what_counts() {
        let latencies = Latencies::default();
        assert_eq!(latencies.p99_ms(), None);
        (0..98).for_each(|_| latencies.record(Duration::from_millis(2)));
        (0..2).for_each(|_| latencies.record(Duration::from_millis(400)));
        let p99 = latencies.p99_ms().expect("calls");
        assert!((400.0..500.0).contains(&p99), "{p99}");
        (0..1_000).for_each(|_| latencies.record(Duration::from_millis(2)));
        let p99 = latencies.p99_ms().expect("calls");
        assert!((2.0..2.5).contains(&p99), "{p99}");
    }
}
