//! A standby for reads that may be some moments old. Whether it shows what the primary did moments ago is seen by
//! positions in the log of writes: clocks say nothing of it, and the time of the last transaction replayed grows old
//! where nobody writes.
use super::{Connector, Pool, State, session::Purpose};
use crate::{Conn, config::Standby as Settings};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Looks in a bound: one that fails must not take the standby away.
const LOOKS: u32 = 4;
/// However short the bound, it is not looked more often.
const SELDOM: Duration = Duration::from_millis(100);
/// However long the bound, it is looked as often.
const OFTEN: Duration = Duration::from_secs(1);
/// Moments that are remembered of a standby that does not come after them.
const MARKS: usize = 512;
/// A standby that takes longer over a look is not asked over that connection again.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// A standby's pool, and how old what it shows may be. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Standby {
    pool: Pool,
    connector: Connector,
    bound: Duration,
    /// It shows what was committed before this moment, at least; none where that is not known.
    shows: Arc<Mutex<Option<Instant>>>,
}

impl Standby {
    pub(super) fn lazy(settings: &Settings, size: u32, session: &str, quiet: Duration) -> anyhow::Result<Self> {
        let connector = Connector::to_standbys(&settings.url, session, quiet)?;
        let pool = Pool::lazy("standby", &connector, Purpose::Standby, size);
        Ok(Self { pool, connector, bound: settings.bound, shows: Arc::default() })
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// How old what it shows may be; none where that is not known.
    pub(crate) fn age(&self) -> Option<Duration> {
        self.shows.lock().unwrap_or_else(PoisonError::into_inner).map(|moment| moment.elapsed())
    }

    /// Returns whether reads go there.
    pub(crate) fn is_fresh(&self) -> bool {
        self.age().is_some_and(|age| age <= self.bound)
    }

    /// Time from one look to the next.
    pub(crate) fn look_every(&self) -> Duration {
        (self.bound / LOOKS).clamp(SELDOM, OFTEN)
    }

    fn note(&self, shows: Option<Instant>) {
        *self.shows.lock().unwrap_or_else(PoisonError::into_inner) = shows;
    }
}

/// Looks again and again how far a standby has come.
pub(crate) struct Follower {
    standby: Standby,
    /// Moments, and where the primary's log was then; those that the standby has not come to yet, and the last it has.
    marks: VecDeque<(Instant, i64)>,
    conn: Option<Conn>,
}

impl Follower {
    pub(crate) fn of(standby: Standby) -> Self {
        Self { standby, marks: VecDeque::new(), conn: None }
    }

    /// One look. What can't be asked now is as old as it was.
    pub(crate) async fn look(&mut self, primary: &Pool) {
        let (state, has_moved) = self.standby.connector.look(&mut self.conn).await;
        if has_moved {
            self.standby.pool.follow();
        }
        if matches!(state, State::Down(_)) {
            self.standby.note(None);
        }
        let (before, written) = (Instant::now(), written(primary).await);
        if let Ok(position) = written {
            self.marks.push_back((before, position));
            if self.marks.len() > MARKS {
                // Of one that is so far behind only how far matters, and that not to the moment.
                self.marks.remove(MARKS / 2);
            }
        }
        let Some(conn) = &mut self.conn else { return };
        let asked = tokio::time::timeout(LOOK_TIMEOUT, replayed(conn)).await;
        match asked.unwrap_or(Err(sqlx::Error::PoolTimedOut)) {
            Ok(Some(position)) => self.standby.note(shown(&mut self.marks, position)),
            // It is promoted, or has not begun.
            Ok(None) => self.standby.note(None),
            Err(error) => {
                tracing::debug!(%error, "a standby was asked how far it is");
                self.conn = None;
            }
        }
    }
}

/// The latest moment that whoever has come to that position shows. Earlier ones are forgotten.
fn shown(marks: &mut VecDeque<(Instant, i64)>, position: i64) -> Option<Instant> {
    let reached = marks.iter().take_while(|(_, mark)| *mark <= position).count();
    marks.drain(..reached.saturating_sub(1));
    marks.front().filter(|(_, mark)| *mark <= position).map(|(moment, _)| *moment)
}

/// Where the log of a server that takes writes is: all that was committed before is before it.
async fn written(primary: &Pool) -> Result<i64, sqlx::Error> {
    let position = sqlx::query_scalar!(r#"SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint AS "at!""#);
    position.fetch_one(primary).await
}

/// Where a standby is in it.
async fn replayed(standby: &mut Conn) -> Result<Option<i64>, sqlx::Error> {
    let position =
        "SELECT CASE WHEN pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::bigint END";
    sqlx::query_scalar(position).fetch_one(standby).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_shows_the_last_moment_whose_position_it_has_come_to() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut marks = VecDeque::from([(at(0), 10), (at(1), 20), (at(2), 20), (at(3), 30)]);
        assert_eq!(shown(&mut marks, 9), None);
        assert_eq!(shown(&mut marks, 10), Some(at(0)));
        assert_eq!(shown(&mut marks, 25), Some(at(2)), "nothing was written from the second to the third");
        assert_eq!(shown(&mut marks, 25), Some(at(2)), "as old as before, by as much");
        assert_eq!(shown(&mut marks, 30), Some(at(3)));
        assert_eq!(marks.len(), 1);
    }
}
