//! Capped exponential backoff with jitter.
use super::ids;
use std::time::Duration;

/// The pause before try `attempt` (1 for the first retry): `base · 2^(attempt-1)`, at most `cap`, of which between half
/// and all is waited, so that many that failed together don't return together.
pub(crate) fn pause(attempt: u32, base: Duration, cap: Duration) -> Duration {
    let doubled = base.saturating_mul(1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX));
    jitter(doubled.min(cap))
}

/// Between half of `pause` and all of it.
pub(crate) fn jitter(pause: Duration) -> Duration {
    let dice = f64::from(ids::random().as_fields().0) / f64::from(u32::MAX);
    pause.mul_f64(0.5 + dice / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_to_its_cap_and_not_beyond() {
        let (base, cap) = (Duration::from_millis(100), Duration::from_secs(5));
        for (attempt, full_ms) in [(1, 100), (2, 200), (3, 400), (40, 5_000), (u32::MAX, 5_000)] {
            let waited = pause(attempt, base, cap).as_millis();
            assert!((full_ms / 2..=full_ms).contains(&waited), "attempt {attempt} waits {waited} ms");
        }
    }
}
