//! Those who watch one topic, in rows. What is new goes round, row after row, and always as the newest there is: a crowd that
//! were woken all at once would be one long queue, and keep the process from everything else.
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// So many stand in a row. All of them fit into the queue of one of tokio's workers, which holds 256: whatever else is to be
/// done waits for one row at most.
const ROW: usize = 64;
/// For the time that telling a row takes, this part of it is left for everything else. On a machine that has much to do telling
/// takes longer, and so do the pauses.
const SPARE_PERCENT: u32 = 30;
/// Timers are no finer: shorter pauses are saved up.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
/// However long telling took: the process may have stood still.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// See the module.
#[derive(Default)]
pub(super) struct Crowd(Mutex<Rows>);

#[derive(Default)]
struct Rows {
    rows: Vec<Row>,
    /// How much news there was.
    news: u64,
    /// The row whose turn it is.
    turn: usize,
    /// No row is told earlier.
    from: Option<Instant>,
    is_under_way: bool,
}

struct Row {
    watchers: watch::Sender<()>,
    /// How much of the news it was told.
    told: u64,
}

impl Row {
    fn length(&self) -> usize {
        self.watchers.receiver_count()
    }
}

impl Crowd {
    /// A place in one of the rows. It is changed whenever there is news.
    pub(super) fn join(&self) -> watch::Receiver<()> {
        let mut rows = self.rows();
        if let Some(row) = rows.rows.iter().find(|row| row.length() < ROW) {
            return row.watchers.subscribe();
        }
        let (watchers, place) = watch::channel(());
        let told = rows.news;
        rows.rows.push(Row { watchers, told });
        place
    }

    /// There is news. Whether somebody must [`Crowd::go_round`] with it.
    pub(super) fn news(&self) -> bool {
        let mut rows = self.rows();
        rows.news += 1;
        !std::mem::replace(&mut rows.is_under_way, true)
    }

    /// Tells the rows in turn until each knows all news.
    pub(super) async fn go_round(&self) {
        loop {
            let from = self.rows().from;
            if let Some(from) = from.filter(|from| *from >= Instant::now() + SHORTEST_PAUSE) {
                tokio::time::sleep_until(from).await;
            }
            if !self.tell() {
                return;
            }
            let began = Instant::now();
            // Comes back when those who were told have had their turn.
            tokio::task::yield_now().await;
            self.rows().rest(pause_after(began.elapsed()));
        }
    }

    /// Tells the next row that does not know all. False where there is none.
    fn tell(&self) -> bool {
        let mut rows = self.rows();
        let (count, first, news) = (rows.rows.len(), rows.turn, rows.news);
        let next = (first..first + count)
            .map(|place| place % count)
            .find(|place| rows.rows[*place].told < news && rows.rows[*place].length() > 0);
        let Some(place) = next else {
            rows.is_under_way = false;
            return false;
        };
        rows.rows[place].told = news;
        rows.rows[place].watchers.send_replace(());
        rows.turn = place + 1;
        true
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rows {
    /// Who is late does not catch up by haste.
    fn rest(&mut self, pause: Duration) {
        let now = Instant::now();
        self.from = Some(self.from.unwrap_or(now).max(now) + pause);
    }
}

/// What is left for everything else when telling a row took so long.
fn pause_after(took: Duration) -> Duration {
    (took * SPARE_PERCENT / 100).min(LONGEST_PAUSE)
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
        let (crowd, mut places) = crowd_of(ROW);
        assert!(crowd.news());
        assert!(crowd.tell());
        assert_eq!(told(&mut places), ROW);
        assert!(!crowd.tell(), "there is no more to tell");
    }

    #[test]
    fn many_are_told_row_by_row_and_of_later_news_too() {
        let (crowd, mut places) = crowd_of(10 * ROW);
        assert!(crowd.news());
        assert!(crowd.tell());
        assert_eq!(told(&mut places), ROW);
        assert!(!crowd.news(), "somebody is going round with it");
        for _ in 0..10 {
            assert!(crowd.tell());
            assert_eq!(told(&mut places), ROW, "the row that had heard but the first comes again, last");
        }
        assert!(!crowd.tell());
        assert!(crowd.news(), "the round is over");
    }

    #[test]
    fn places_that_were_left_are_taken_again() {
        let (crowd, mut places) = crowd_of(3 * ROW);
        places.drain(ROW..ROW + 5);
        places.extend((0..5).map(|_| crowd.join()));
        assert_eq!(crowd.rows().rows.len(), 3);
        assert!(crowd.news());
        for _ in 0..3 {
            assert!(crowd.tell());
        }
        assert_eq!(told(&mut places), 3 * ROW);
    }

    #[test]
    fn the_longer_telling_takes_the_longer_is_the_pause() {
        let [short, long] = [10, 50].map(|took| pause_after(Duration::from_millis(took)));
        assert!(short > Duration::ZERO && long == 5 * short, "{short:?}, {long:?}");
        assert_eq!(pause_after(Duration::from_secs(60)), LONGEST_PAUSE);
    }
}
