//! Those who watch one topic, in rows. What is new goes round, row after row, and always as the newest there is: a crowd that
//! were woken all at once would be one long queue, and keep the process from everything else.
use std::{
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// Updates of one topic that are sent in a second, over all who watch it here. What would be more is skipped for what is newer.
/// So many leave one processor time for something else: closer to what it can do at most, each of them comes later.
const UPDATES_PER_SECOND: u32 = 40_000;
const ROWS: usize = 8;
/// So many stand in one row, and need no more.
const A_FEW: usize = 200;
/// Timers are no finer: rows that would follow one another faster are told at once.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);

/// See the module.
pub(super) struct Crowd {
    /// Most topics are watched by a few, and have but one.
    rows: [OnceLock<watch::Sender<()>>; ROWS],
    round: Mutex<Round>,
}

struct Round {
    /// How much news there was,
    news: u64,
    /// and how much of it each row was told.
    told: [u64; ROWS],
    /// The row whose turn it is.
    turn: usize,
    /// No row is told earlier.
    from: Instant,
    is_under_way: bool,
}

impl Default for Crowd {
    fn default() -> Self {
        let round = Round { news: 0, told: [0; ROWS], turn: 0, from: Instant::now(), is_under_way: false };
        Self { rows: [const { OnceLock::new() }; ROWS], round: Mutex::new(round) }
    }
}

impl Crowd {
    /// A place in one of the rows. It is changed whenever there is news.
    pub(super) fn join(&self) -> watch::Receiver<()> {
        let are_few = self.rows.iter().map(length).sum::<usize>() < A_FEW;
        let shortest = || self.rows.iter().min_by_key(|row| length(row)).filter(|_| !are_few);
        shortest().unwrap_or(&self.rows[0]).get_or_init(|| watch::Sender::new(())).subscribe()
    }

    /// There is news. Whether somebody must [`Crowd::go_round`] with it.
    pub(super) fn news(&self) -> bool {
        let mut round = self.round();
        round.news += 1;
        if round.is_under_way {
            return false;
        }
        (round.from, round.is_under_way) = (round.from.max(Instant::now()), true);
        true
    }

    /// Tells the rows in turn until each knows all news.
    pub(super) async fn go_round(&self) {
        while let Some(due) = self.next_turn() {
            tokio::time::sleep_until(due).await;
            self.tell();
        }
    }

    /// When the next row is told. None where there is nothing to tell.
    fn next_turn(&self) -> Option<Instant> {
        let mut round = self.round();
        let mut rows = round.told.iter().zip(&self.rows);
        round.is_under_way = rows.any(|(told, row)| *told < round.news && length(row) > 0);
        round.is_under_way.then_some(round.from)
    }

    /// Tells the next row that does not know all, and more of them where they are short.
    fn tell(&self) {
        let mut round = self.round();
        let (first, mut pause) = (round.turn, Duration::ZERO);
        for row in (first..first + ROWS).map(|row| row % ROWS) {
            if round.told[row] < round.news {
                round.told[row] = round.news;
                pause += time_for(length(&self.rows[row]));
                if let Some(row) = self.rows[row].get() {
                    row.send_replace(());
                }
            }
            if pause >= SHORTEST_PAUSE {
                round.turn = row + 1;
                break;
            }
        }
        // Who is late does not catch up by haste.
        round.from = Instant::now().max(round.from + pause);
    }

    fn round(&self) -> MutexGuard<'_, Round> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many stand in a row.
fn length(row: &OnceLock<watch::Sender<()>>) -> usize {
    row.get().map_or(0, watch::Sender::receiver_count)
}

/// What it takes to tell so many.
fn time_for(watchers: usize) -> Duration {
    Duration::from_secs(1) * u32::try_from(watchers).unwrap_or(u32::MAX) / UPDATES_PER_SECOND
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd_of(watchers: usize) -> (Crowd, Vec<watch::Receiver<()>>) {
        let crowd = Crowd::default();
        let places = (0..watchers).map(|_| crowd.join()).collect();
        (crowd, places)
    }

    /// How many have been told something since they were last asked.
    fn told(places: &mut [watch::Receiver<()>]) -> usize {
        let mut told = 0;
        for place in places {
            told += usize::from(place.has_changed().unwrap());
            place.mark_unchanged();
        }
        told
    }

    #[test]
    fn a_few_are_told_at_once() {
        let (crowd, mut places) = crowd_of(200);
        assert_eq!(crowd.rows.iter().filter(|row| row.get().is_some()).count(), 1, "they stand in one row");
        assert_eq!(crowd.next_turn(), None);
        assert!(crowd.news());
        assert!(crowd.next_turn().is_some());
        crowd.tell();
        assert_eq!(told(&mut places), 200);
        assert_eq!(crowd.next_turn(), None, "there is no more to tell");
    }

    #[test]
    fn many_are_told_row_by_row_and_of_later_news_too() {
        let (crowd, mut places) = crowd_of(4_000);
        assert!(crowd.news());
        crowd.tell();
        assert_eq!(told(&mut places), 500);
        assert!(!crowd.news(), "somebody is going round with it");
        let mut pauses = Vec::new();
        while let Some(due) = crowd.next_turn() {
            pauses.push(due);
            crowd.tell();
            assert_eq!(told(&mut places), 500);
        }
        assert_eq!(pauses.len(), ROWS, "the row that had heard but the first comes again");
        assert!(pauses.windows(2).all(|due| due[1] >= due[0] + time_for(500)), "one after the other");
        assert!(crowd.news(), "the round is over");
    }
}
