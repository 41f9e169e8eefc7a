//! Those who watch one topic, in rows. What is new goes round, row after row, and always as the newest there is: all
//! of them woken at once would be one long queue, and keep the process from everything else.
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::Instant};

/// So many stand in a row. All of them fit into the queue of one of tokio's workers, which holds 256: whatever else is
/// to be done waits for one row at most.
const ROW: usize = 64;
/// For the time that telling a row takes, this part of it is left for everything else. On a machine that has much to do
/// telling takes longer, and so do the pauses.
const SPARE_PERCENT: u32 = 20;
/// Timers are no finer: shorter pauses are saved up.
const SHORTEST_PAUSE: Duration = Duration::from_millis(1);
/// However long telling took: the process may have stood still.
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// See the module.
#[derive(Default)]
pub(super) struct FanOut(Mutex<Round>);

#[derive(Default)]
struct Round {
    rows: Vec<Row>,
    /// How much news there was.
    news: u64,
    /// The row whose turn it is.
    turn: usize,
    /// Pauses that are still to be made.
    owed: Duration,
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

impl FanOut {
    /// A place in one of the rows. It is changed whenever there is news.
    pub(super) fn join(&self) -> watch::Receiver<()> {
        let mut round = self.round();
        if let Some(row) = round.rows.iter().find(|row| row.length() < ROW) {
            return row.watchers.subscribe();
        }
        let (watchers, place) = watch::channel(());
        let told = round.news;
        round.rows.push(Row { watchers, told });
        place
    }

    /// There is news. Whether somebody must [`FanOut::go_round`] with it.
    pub(super) fn news(&self) -> bool {
        let mut round = self.round();
        round.news += 1;
        !std::mem::replace(&mut round.is_under_way, true)
    }

    /// Tells the rows in turn until each knows all news.
    pub(super) async fn go_round(&self) {
        while self.tell() {
            let began = Instant::now();
            // Comes back when those who were told have had their turn: the first time perhaps in the midst of them,
            // behind what the worker looks at between two tasks.
            tokio::task::yield_now().await;
            tokio::task::yield_now().await;
            let pause = self.owed_after(began.elapsed());
            if pause >= SHORTEST_PAUSE {
                let began = Instant::now();
                tokio::time::sleep(pause).await;
                self.round().owed = pause.saturating_sub(began.elapsed());
            }
        }
    }

    /// Tells the next row that does not know all. False where there is none.
    fn tell(&self) -> bool {
        let mut round = self.round();
        let (count, first, news) = (round.rows.len(), round.turn, round.news);
        let next = (first..first + count)
            .map(|place| place % count)
            .find(|place| round.rows[*place].told < news && round.rows[*place].length() > 0);
        let Some(place) = next else {
            round.is_under_way = false;
            return false;
        };
        round.rows[place].told = news;
        round.rows[place].watchers.send_replace(());
        round.turn = place + 1;
        true
    }

    /// The pauses that are to be made when telling another row took so long.
    fn owed_after(&self, took: Duration) -> Duration {
        let mut round = self.round();
        round.owed += pause_after(took);
        round.owed
    }

    fn round(&self) -> MutexGuard<'_, Round> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns what is left for everything else when telling a row took so long.
fn pause_after(took: Duration) -> Duration {
    (took * SPARE_PERCENT / 100).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fan_out_to(watchers: usize) -> (FanOut, Vec<watch::Receiver<()>>) {
        let fan_out = FanOut::default();
        let places = (0..watchers).map(|_| fan_out.join()).collect();
        (fan_out, places)
    }

    /// Returns how many have been told something since they were last asked.
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
        let (fan_out, mut places) = fan_out_to(ROW);
        assert!(fan_out.news());
        assert!(fan_out.tell());
        assert_eq!(told(&mut places), ROW);
        assert!(!fan_out.tell(), "there is no more to tell");
    }

    #[test]
    fn many_are_told_row_by_row_and_of_later_news_too() {
        let (fan_out, mut places) = fan_out_to(10 * ROW);
        assert!(fan_out.news());
        assert!(fan_out.tell());
        assert_eq!(told(&mut places), ROW);
        assert!(!fan_out.news(), "somebody is going round with it");
        for _ in 0..10 {
            assert!(fan_out.tell());
            assert_eq!(told(&mut places), ROW, "the row that had heard but the first comes again, last");
        }
        assert!(!fan_out.tell());
        assert!(fan_out.news(), "the round is over");
    }

    #[test]
    fn places_that_were_left_are_taken_again() {
        let (fan_out, mut places) = fan_out_to(3 * ROW);
        places.drain(ROW..ROW + 5);
        places.extend((0..5).map(|_| fan_out.join()));
        assert_eq!(fan_out.round().rows.len(), 3);
        assert!(fan_out.news());
        for _ in 0..3 {
            assert!(fan_out.tell());
        }
        assert_eq!(told(&mut places), 3 * ROW);
    }

    #[test]
    fn the_longer_telling_takes_the_longer_is_the_pause() {
        let [short, long] = [10, 50].map(|took| pause_after(Duration::from_millis(took)));
        assert!(short > Duration::ZERO && long == 5 * short, "{short:?}, {long:?}");
        assert_eq!(pause_after(Duration::from_mins(1)), LONGEST_PAUSE);
    }

    #[test]
    fn short_pauses_are_saved_up() {
        let fan_out = FanOut::default();
        let owed: Vec<_> = (0..10).map(|_| fan_out.owed_after(Duration::from_millis(1))).collect();
        assert!(owed[0] < SHORTEST_PAUSE && owed[9] == 10 * owed[0] && owed[9] > SHORTEST_PAUSE, "{owed:?}");
    }
}
