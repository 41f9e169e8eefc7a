//! Those who watch one topic, in rows. What is new goes round, row after row, and always as the newest there is: a crowd that
//! were woken all at once would be one long queue, and keep the process from everything else.
use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// Updates of one topic that are sent in a second, over all who watch it here. What would be more is skipped for what is newer.
/// So many leave one processor time for something else: closer to what it can do at most, each of them comes later.
const UPDATES_PER_SECOND: u32 = 40_000;
const ROWS: usize = 8;
/// Rows are not told apart where they would follow one another faster: timers are no finer.
const SHORTEST_STEP: Duration = Duration::from_millis(1);

/// See the module.
pub(super) struct Crowd {
    rows: [watch::Sender<()>; ROWS],
    next_row: AtomicUsize,
    round: Mutex<Round>,
}

struct Round {
    /// How much news there was,
    news: u64,
    /// and how much of it each row was told.
    told: [u64; ROWS],
    /// The row whose turn it is.
    turn: usize,
    /// No row is woken earlier.
    from: Instant,
    is_under_way: bool,
}

impl Default for Crowd {
    fn default() -> Self {
        let round = Round { news: 0, told: [0; ROWS], turn: 0, from: Instant::now(), is_under_way: false };
        Self {
            rows: [(); ROWS].map(|()| watch::Sender::new(())),
            next_row: AtomicUsize::default(),
            round: Mutex::new(round),
        }
    }
}

impl Crowd {
    /// A place in one of the rows. It is changed whenever there is news.
    pub(super) fn join(&self) -> watch::Receiver<()> {
        self.rows[self.next_row.fetch_add(1, Relaxed) % ROWS].subscribe()
    }

    /// There is news. Whether somebody must [`Crowd::go_round`] with it.
    pub(super) fn news(&self) -> bool {
        let mut round = self.round();
        round.news += 1;
        !std::mem::replace(&mut round.is_under_way, true)
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
        round.is_under_way = round.told.iter().any(|told| *told < round.news);
        round.is_under_way.then_some(round.from)
    }

    /// Tells the next row that does not know all; all of them where the crowd is small.
    fn tell(&self) {
        let (rows, pause) = step(self.rows.iter().map(watch::Sender::receiver_count).sum());
        let mut round = self.round();
        for _ in 0..rows {
            let (turn, news) = (round.turn, round.news);
            let mut ahead = (turn..turn + ROWS).map(|row| row % ROWS);
            let Some(row) = ahead.find(|row| round.told[*row] < news) else { break };
            round.told[row] = news;
            round.turn = row + 1;
            self.rows[row].send_replace(());
        }
        // Who is late does not catch up by haste.
        round.from = Instant::now().max(round.from + pause);
    }

    fn round(&self) -> MutexGuard<'_, Round> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many rows are told at a time, and how long until the next are.
fn step(watchers: usize) -> (usize, Duration) {
    let time_for =
        |watchers: usize| Duration::from_secs(1) * u32::try_from(watchers).unwrap_or(u32::MAX) / UPDATES_PER_SECOND;
    let of_a_row = time_for(watchers / ROWS);
    if of_a_row < SHORTEST_STEP { (ROWS, time_for(watchers)) } else { (1, of_a_row) }
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
        assert!(pauses.windows(2).all(|due| due[1] >= due[0] + step(4_000).1), "one after the other");
        assert!(crowd.news(), "the round is over");
    }
}
