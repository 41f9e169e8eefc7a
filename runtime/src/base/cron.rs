//! When a schedule ticks: a cron pattern, the time zone it is read in, and what becomes of ticks that were missed.
//!
//! The pattern has five fields (minute, hour, day of month, month, day of week) or six, seconds first; `@daily` and its
//! like stand for one. Across a change to or from summer time it behaves as Vixie cron does: the crate `croner`
//! decides.
use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use croner::Cron;
use std::{fmt, str::FromStr};

/// A tick that is taken later than this was missed: no worker ran when it was due.
const ON_TIME: TimeDelta = TimeDelta::seconds(10);
/// What was missed longer ago than this is never caught up on.
const MAX_CATCH_UP: TimeDelta = TimeDelta::days(31);

/// The fate of ticks that were due while no worker ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CatchUp {
    /// They are skipped.
    None,
    /// The newest of them runs, for all.
    One,
    /// Each runs, oldest first; those of the last 31 days.
    All,
}

/// A cron pattern in a time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CronSchedule {
    /// Such as `30 4 * * MON-FRI`, or `*/10 * * * * *` with seconds.
    pub cron: &'static str,
    /// A name of the IANA time zone database.
    pub zone: &'static str,
    /// The fate of missed ticks.
    pub catch_up: CatchUp,
}

impl CronSchedule {
    /// That pattern in UTC; of the ticks that were missed, the newest runs.
    pub const fn cron(cron: &'static str) -> Self {
        Self { cron, zone: "UTC", catch_up: CatchUp::One }
    }

    /// In another time zone.
    #[must_use]
    pub const fn zone(self, zone: &'static str) -> Self {
        Self { zone, ..self }
    }

    /// With another policy for missed ticks.
    #[must_use]
    pub const fn catch_up(self, catch_up: CatchUp) -> Self {
        Self { catch_up, ..self }
    }

    /// Returns what is wrong with it.
    pub(crate) fn validate(&self) -> Option<String> {
        self.parse().err()
    }

    pub(crate) fn parse(&self) -> Result<CronTicks, String> {
        let cron = Cron::from_str(self.cron).map_err(|error| {
            format!("{:?} is no cron pattern: {error}; allowed: five fields, or six with seconds first", self.cron)
        })?;
        let zone = Tz::from_str(self.zone)
            .map_err(|_| format!("{:?} is no time zone; allowed: an IANA name, such as Europe/Berlin", self.zone))?;
        Ok(CronTicks { cron, zone, catch_up: self.catch_up })
    }
}

impl fmt::Display for CronSchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}", self.cron, self.zone)
    }
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Nothing,
    /// Run this tick.
    Run(DateTime<Utc>),
    /// Pass over everything up to this tick.
    Skip(DateTime<Utc>),
}

/// A cron schedule that can be asked.
pub(crate) struct CronTicks {
    cron: Cron,
    zone: Tz,
    catch_up: CatchUp,
}

impl CronTicks {
    /// The first tick after `at`; none when the pattern names no further date.
    pub(crate) fn next_after(&self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let next = self.cron.find_next_occurrence(&at.with_timezone(&self.zone), false).ok()?;
        Some(next.with_timezone(&Utc))
    }

    fn latest_until(&self, at: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let latest = self.cron.find_previous_occurrence(&at.with_timezone(&self.zone), true).ok()?;
        Some(latest.with_timezone(&Utc))
    }

    /// Returns what is due at `now`, when the newest tick that ran or was passed over is `last`.
    pub(crate) fn due(&self, last: DateTime<Utc>, now: DateTime<Utc>) -> Due {
        let Some(latest) = self.latest_until(now).filter(|latest| *latest > last) else { return Due::Nothing };
        match self.catch_up {
            CatchUp::One => Due::Run(latest),
            CatchUp::None if now - latest <= ON_TIME => Due::Run(latest),
            CatchUp::None => Due::Skip(latest),
            CatchUp::All => {
                let from = last.max(now - MAX_CATCH_UP);
                Due::Run(self.next_after(from).filter(|oldest| *oldest <= latest).unwrap_or(latest))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn ticks(cron: CronSchedule, mut last: DateTime<Utc>, now: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        let ticks = cron.parse().unwrap();
        let mut ran = Vec::new();
        loop {
            match ticks.due(last, now) {
                Due::Nothing => return ran,
                Due::Run(tick) => {
                    ran.push(tick);
                    last = tick;
                }
                Due::Skip(tick) => last = tick,
            }
        }
    }

    #[test]
    fn a_missed_hour_is_caught_up_on_as_the_policy_says() {
        let every_minute = CronSchedule::cron("* * * * *");
        let (last, now) = (at("2026-03-01T10:00:00Z"), at("2026-03-01T11:00:30Z"));
        assert_eq!(ticks(every_minute.catch_up(CatchUp::All), last, now).len(), 60);
        assert_eq!(ticks(every_minute.catch_up(CatchUp::One), last, now), [at("2026-03-01T11:00:00Z")]);
        assert!(ticks(every_minute.catch_up(CatchUp::None), last, now).is_empty());
        let on_time = at("2026-03-01T11:00:01Z");
        assert_eq!(ticks(every_minute.catch_up(CatchUp::None), last, on_time), [at("2026-03-01T11:00:00Z")]);
    }

    #[test]
    fn what_was_missed_too_long_ago_is_left() {
        let daily = CronSchedule::cron("0 0 * * *").catch_up(CatchUp::All);
        assert_eq!(ticks(daily, at("2020-01-01T00:00:00Z"), at("2026-03-01T12:00:00Z")).len(), 31);
    }

    #[test]
    fn a_tick_is_local_time_in_its_zone_on_both_sides_of_summer_time() {
        let ticks = CronSchedule::cron("30 4 * * *").zone("Europe/Berlin").parse().unwrap();
        let next = |text| ticks.next_after(at(text)).unwrap();
        assert_eq!(next("2026-03-28T12:00:00Z"), at("2026-03-29T02:30:00Z"));
        assert_eq!(next("2026-03-27T12:00:00Z"), at("2026-03-28T03:30:00Z"));
    }

    #[test]
    fn a_tick_that_ran_does_not_run_again() {
        let every_second = CronSchedule::cron("* * * * * *").parse().unwrap();
        let now = at("2026-03-01T10:00:00.900Z");
        assert_eq!(every_second.due(at("2026-03-01T10:00:00Z"), now), Due::Nothing);
        assert_eq!(every_second.due(at("2026-03-01T09:59:59Z"), now), Due::Run(at("2026-03-01T10:00:00Z")));
    }
}
