//! How fast a backfill goes: so that protected calls stay nearly as quick as they are without it.
//!
//! Their p99 without it is noted while it stands still: at its start, and again from time to time, since a day has busy
//! hours. From then on the share of its time that it works follows the p99 as it is: less at once where that is too
//! high, more by and by where it is not.
use super::plan::Plan;
use chrono::{DateTime, TimeDelta, Utc};
use std::time::Duration;

/// It stands still for this long before a p99 counts as what it is without the backfill: longer than services look
/// back.
const SETTLED_AFTER: TimeDelta = TimeDelta::seconds(11);
/// And for so long altogether: what is noted is the mean of some looks, since one may be lucky.
const STILL_FOR: TimeDelta = TimeDelta::seconds(21);
/// Weight of the newest look in that mean.
const NEWEST: f64 = 0.3;
/// What was noted holds for so long.
const NOTED_FOR: TimeDelta = TimeDelta::hours(1);
/// Where protected calls are slower for longer, at the least pace, it is not the backfill that slows them: what was
/// noted is of another time, and is noted anew.
const DOUBTED_AFTER: TimeDelta = TimeDelta::minutes(1);
/// The pace is set so often: a p99 that looks back over seconds follows no faster.
const SET_EVERY: TimeDelta = TimeDelta::seconds(2);
/// It begins with this share.
const FIRST: f64 = 0.02;
/// And never has less: other limits stop it. A chunk of the least time each second would meet one call in a hundred, and
/// be what their p99 is.
const LEAST: f64 = 0.002;
/// From one time that it is set to the next, it changes between these.
const DOWN: f64 = 0.7;
const UP: f64 = 1.15;
/// A p99 that is steered by swings around what it is steered to: that is so much of what it may rise by.
const AIMED_AT: f64 = 0.5;
/// Nobody notices less than this, whatever it was before, in milliseconds.
const UNNOTICED_MS: f64 = 2.0;
/// A chunk is to take no less than this: many small ones are in the way of more calls than few larger ones.
const LEAST_CHUNK: Duration = Duration::from_millis(10);

/// Sets the pace by the p99 of protected calls; false where it must stand still for now.
pub(super) fn set(plan: &mut Plan, p99_ms: Option<f64>, now: DateTime<Utc>) -> bool {
    if plan.p99_ratio == 0.0 {
        // However slow they become: other limits hold.
        (plan.pace, plan.still_since) = (1.0, None);
        return true;
    }
    let is_due = plan.paced_at.is_none_or(|at| now - at >= SET_EVERY);
    let Some(p99) = p99_ms else {
        // Hardly anybody is there to be slowed. Where some come and go, it must not be all or nothing.
        plan.still_since = None;
        if is_due {
            (plan.pace, plan.paced_at) = (next(plan.pace, 0.0), Some(now));
        }
        return true;
    };
    let is_fresh = |noted: DateTime<Utc>| now - noted < NOTED_FOR;
    let Some(before) = plan.p99_before_ms.filter(|_| plan.p99_noted_at.is_some_and(is_fresh)) else {
        return note(plan, p99, now);
    };
    let allowed = (before + before * (f64::from(plan.p99_ratio) - 1.0) * AIMED_AT).max(UNNOTICED_MS);
    if plan.pace <= LEAST && p99 > allowed && plan.p99_noted_at.is_some_and(|noted| now - noted >= DOUBTED_AFTER) {
        return note(plan, p99, now);
    }
    if is_due {
        (plan.pace, plan.paced_at) = (next(plan.pace, p99 / allowed), Some(now));
    }
    true
}

/// Stands still until it is known what the p99 is without the backfill, and notes it.
fn note(plan: &mut Plan, p99: f64, now: DateTime<Utc>) -> bool {
    let Some(since) = plan.still_since else {
        (plan.still_since, plan.p99_before_ms, plan.p99_noted_at) = (Some(now), None, None);
        return false;
    };
    if now - since >= SETTLED_AFTER {
        let before = plan.p99_before_ms.unwrap_or(p99);
        plan.p99_before_ms = Some(before + (p99 - before) * NEWEST);
    }
    if now - since < STILL_FOR {
        return false;
    }
    (plan.p99_noted_at, plan.still_since) = (Some(now), None);
    (plan.pace, plan.paced_at) = (plan.pace.min(FIRST), Some(now));
    true
}

fn next(pace: f64, excess: f64) -> f64 {
    // Of no excess at all the reciprocal is infinite, which is as fast as it rises.
    (pace * excess.recip().clamp(DOWN, UP)).clamp(LEAST, 1.0)
}

/// The time that a chunk is to take at the plan's pace.
pub(super) fn chunk_time(plan: &Plan) -> Duration {
    let asked = Duration::from_millis(u64::try_from(plan.target_ms).unwrap_or(1));
    asked.mul_f64(plan.pace.clamp(LEAST, 1.0)).max(LEAST_CHUNK).min(asked)
}

/// The rest after a chunk that took so long.
pub(super) fn rest(plan: &Plan, chunk: Duration) -> Duration {
    let idle = plan.pace.clamp(LEAST, 1.0).recip() - 1.0;
    chunk.mul_f64(idle + f64::from(plan.rest_ratio.max(0.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_falls_at_once_and_rises_by_and_by() {
        assert!((next(0.5, 10.0) - 0.35).abs() < 1e-9);
        assert!((next(0.5, 1.0) - 0.5).abs() < 1e-9);
        assert!((next(0.5, 0.1) - 0.575).abs() < 1e-9);
        assert!((next(LEAST, 10.0) - LEAST).abs() < 1e-9);
        assert!((next(1.0, 0.1) - 1.0).abs() < 1e-9);
        assert!((next(0.5, 0.0) - 0.575).abs() < 1e-9);
    }
}
