//! Combining: what waits becomes one batch, and nothing ever waits for a batch to fill.
//!
//! Entries queue by key. A lane takes whatever is waiting, of one key or of many, works on it, and takes whatever has
//! come in the meantime. A key is in one lane at a time, so that its entries keep their order. Lanes are tasks that end
//! when nothing waits: an idle handler has none.
//!
//! One lane is enough while it is quick, and makes the largest batches. Another one opens when a batch has had no room
//! for all keys that are ready, or when a lane is held up: a key that holds up its lane holds up no other.
use crate::base::spec::Batch;
use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Entries of one handler, by key.
pub(crate) struct Combiner<K, T> {
    limits: Batch,
    state: Mutex<State<K, T>>,
}

struct State<K, T> {
    /// Keys that have something waiting and are in no lane, longest waiting first.
    ready: VecDeque<K>,
    keys: HashMap<K, Queue<T>>,
    lanes: usize,
    /// Lanes whose batch takes long.
    held_up: usize,
}

struct Queue<T> {
    waiting: VecDeque<Entry<T>>,
    /// Entries of this key that a lane is working on; while there are any, the key is in that lane.
    in_lane: usize,
}

struct Entry<T> {
    what: T,
    bytes: usize,
}

/// As many entries of one key as may be are inside already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Full;

/// The right to work: ends with [`Lane::next`] finding nothing.
pub(crate) struct Lane<K: Hash + Eq + Clone, T> {
    combiner: Arc<Combiner<K, T>>,
    /// Keys of the batch being worked on.
    held: Vec<K>,
    held_up: bool,
    open: bool,
}

/// Keys that a lane has quarantined, so as not to be held up by them: nobody else takes them until [`Quarantine::end`].
pub(crate) struct Quarantine<K: Hash + Eq + Clone, T> {
    combiner: Arc<Combiner<K, T>>,
    held: Vec<K>,
}

impl<K: Hash + Eq + Clone, T> Combiner<K, T> {
    pub(crate) fn new(limits: Batch) -> Arc<Self> {
        let state = State { ready: VecDeque::new(), keys: HashMap::new(), lanes: 0, held_up: 0 };
        Arc::new(Self { limits, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State<K, T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts an entry behind those of its key. Gives a lane that must be worked, where another may open.
    ///
    /// # Errors
    /// [`Full`] when as many of its key as may be are inside, without those that are no longer wanted.
    pub(crate) fn submit(
        self: &Arc<Self>,
        key: K,
        (what, bytes): (T, usize),
        wanted: impl Fn(&T) -> bool,
    ) -> Result<Option<Lane<K, T>>, Full> {
        let mut state = self.state();
        let queue = state.keys.entry(key.clone()).or_insert_with(|| Queue { waiting: VecDeque::new(), in_lane: 0 });
        let is_full = |queue: &Queue<T>| queue.waiting.len() + queue.in_lane >= self.limits.per_key;
        if is_full(queue) && queue.in_lane > 0 {
            queue.waiting.retain(|entry| wanted(&entry.what));
        }
        if is_full(queue) {
            return Err(Full);
        }
        queue.waiting.push_back(Entry { what, bytes });
        if queue.in_lane == 0 && queue.waiting.len() == 1 {
            state.ready.push_back(key);
        }
        Ok(self.open_unless_one_is_quick(&mut state))
    }

    fn open_unless_one_is_quick(self: &Arc<Self>, state: &mut State<K, T>) -> Option<Lane<K, T>> {
        if state.lanes > state.held_up { None } else { self.open(state) }
    }

    /// One more lane, where keys are ready and another may open.
    fn open(self: &Arc<Self>, state: &mut State<K, T>) -> Option<Lane<K, T>> {
        if state.ready.is_empty() || state.lanes >= self.limits.lanes {
            return None;
        }
        state.lanes += 1;
        Some(Lane { combiner: self.clone(), held: Vec::new(), held_up: false, open: true })
    }
}

impl<K: Hash + Eq + Clone, T> State<K, T> {
    /// Lets keys go, back into the line where something of them waits.
    fn release(&mut self, held: impl Iterator<Item = K>) {
        for key in held {
            let Some(queue) = self.keys.get_mut(&key) else { continue };
            queue.in_lane = 0;
            if queue.waiting.is_empty() {
                self.keys.remove(&key);
            } else {
                self.ready.push_back(key);
            }
        }
    }

    /// Returns what is waiting, within the limits; entries that nobody wants any more are dropped.
    fn take(&mut self, limits: Batch, held: &mut Vec<K>, wanted: impl Fn(&T) -> bool) -> Vec<T> {
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while let Some(key) = self.ready.pop_front() {
            let Some(queue) = self.keys.get_mut(&key) else { continue };
            let mut full = false;
            while let Some(entry) = queue.waiting.front() {
                let fits = batch.len() < limits.size && bytes + entry.bytes <= limits.bytes;
                if wanted(&entry.what) && !fits && !batch.is_empty() {
                    full = true;
                    break;
                }
                let Some(Entry { what, bytes: more }) = queue.waiting.pop_front() else { break };
                if wanted(&what) {
                    queue.in_lane += 1;
                    bytes += more;
                    batch.push(what);
                }
            }
            match (queue.in_lane, queue.waiting.is_empty()) {
                (0, true) => drop(self.keys.remove(&key)),
                // Nothing of it fitted: it stays at the head of the line.
                (0, false) => self.ready.push_front(key),
                _ => held.push(key),
            }
            if full {
                break;
            }
        }
        batch
    }
}

impl<K: Hash + Eq + Clone, T> Lane<K, T> {
    /// The next batch, in the order of arrival within each key. None when nothing waits: then this lane is closed.
    pub(crate) fn next(&mut self, wanted: impl Fn(&T) -> bool) -> Option<Vec<T>> {
        let combiner = self.combiner.clone();
        let mut state = combiner.state();
        self.let_go(&mut state);
        let batch = state.take(combiner.limits, &mut self.held, wanted);
        if batch.is_empty() {
            state.lanes -= 1;
            self.open = false;
            return None;
        }
        Some(batch)
    }

    /// One more lane, where this one's batch had no room for all keys that are ready.
    pub(crate) fn another(&self) -> Option<Self> {
        self.combiner.open(&mut self.combiner.state())
    }

    /// Says that this batch takes long: others no longer wait for this lane. One more lane, where any do.
    pub(crate) fn is_held_up(&mut self) -> Option<Self> {
        let mut state = self.combiner.state();
        if !self.held_up {
            self.held_up = true;
            state.held_up += 1;
        }
        self.combiner.open(&mut state)
    }

    /// Sets some of this lane's keys apart: it is not held up by them any longer.
    pub(crate) fn quarantine(&mut self, keys: &[K]) -> Quarantine<K, T> {
        let (quarantine, held) = self.held.drain(..).partition(|key| keys.contains(key));
        self.held = held;
        Quarantine { combiner: self.combiner.clone(), held: quarantine }
    }

    fn let_go(&mut self, state: &mut State<K, T>) {
        state.release(self.held.drain(..));
        state.held_up -= usize::from(self.held_up);
        self.held_up = false;
    }
}

impl<K: Hash + Eq + Clone, T> Quarantine<K, T> {
    /// Lets the keys go. Gives a lane, where entries of theirs wait and no other lane would take them soon.
    pub(crate) fn end(mut self) -> Option<Lane<K, T>> {
        let combiner = self.combiner.clone();
        let mut state = combiner.state();
        state.release(self.held.drain(..));
        combiner.open_unless_one_is_quick(&mut state)
    }
}

impl<K: Hash + Eq + Clone, T> Drop for Quarantine<K, T> {
    fn drop(&mut self) {
        if !self.held.is_empty() {
            let combiner = self.combiner.clone();
            combiner.state().release(self.held.drain(..));
        }
    }
}

/// A lane whose task ends early gives its keys and its place back.
impl<K: Hash + Eq + Clone, T> Drop for Lane<K, T> {
    fn drop(&mut self) {
        if self.open {
            let combiner = self.combiner.clone();
            let mut state = combiner.state();
            self.let_go(&mut state);
            state.lanes -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type C = Arc<Combiner<&'static str, u32>>;

    fn combiner(size: usize, lanes: usize) -> C {
        Combiner::new(Batch { size, bytes: 100, lanes, per_key: 4 })
    }

    type Submitted = Result<Option<Lane<&'static str, u32>>, Full>;

    /// Nothing above 99 is wanted.
    fn submit(c: &C, key: &'static str, n: u32, bytes: usize) -> Submitted {
        c.submit(key, (n, bytes), |n| *n < 100)
    }

    fn next(lane: &mut Lane<&'static str, u32>) -> Option<Vec<u32>> {
        lane.next(|_| true)
    }

    #[test]
    fn whatever_came_meanwhile_is_the_next_batch() {
        let c = combiner(10, 1);
        let mut lane = submit(&c, "a", 1, 1).unwrap().unwrap();
        assert_eq!(next(&mut lane), Some(vec![1]), "the first never waits");
        assert!(submit(&c, "a", 2, 1).unwrap().is_none());
        assert!(submit(&c, "b", 3, 1).unwrap().is_none(), "one lane and no more");
        assert!(submit(&c, "a", 4, 1).unwrap().is_none());
        assert_eq!(next(&mut lane), Some(vec![3, 2, 4]));
        assert_eq!(next(&mut lane), None);
        assert!(submit(&c, "a", 5, 1).unwrap().is_some(), "a closed lane opens again");
        assert!(c.state().keys.len() == 1, "keys that are done with are forgotten");
    }

    #[test]
    fn a_key_is_in_one_lane_at_a_time_and_holds_up_no_other() {
        let c = combiner(10, 2);
        let mut first = submit(&c, "a", 1, 1).unwrap().unwrap();
        assert_eq!(next(&mut first), Some(vec![1]));
        assert!(submit(&c, "b", 3, 1).unwrap().is_none(), "one lane is enough while it is quick");
        assert!(submit(&c, "a", 2, 1).unwrap().is_none(), "its key is in the first lane");
        let mut second = first.is_held_up().unwrap();
        assert_eq!(next(&mut second), Some(vec![3]));
        assert_eq!(next(&mut second), None);
        assert_eq!(next(&mut first), Some(vec![2]));
    }

    #[test]
    fn size_and_bytes_bound_a_batch_and_a_larger_entry_goes_alone() {
        let c = combiner(2, 1);
        let mut lane = submit(&c, "a", 1, 60).unwrap().unwrap();
        assert!(submit(&c, "a", 2, 60).unwrap().is_none());
        assert!(submit(&c, "b", 3, 500).unwrap().is_none());
        assert_eq!(next(&mut lane), Some(vec![1]), "the second does not fit in 100 bytes");
        assert_eq!(next(&mut lane), Some(vec![3]), "larger than any batch");
        for (key, n) in [("c", 4), ("c", 5), ("c", 6)] {
            submit(&c, key, n, 1).unwrap();
        }
        assert_eq!(next(&mut lane), Some(vec![2, 4]), "two and no more");
        assert_eq!(next(&mut lane), Some(vec![5, 6]));
    }

    #[test]
    fn what_has_no_room_in_a_batch_opens_another_lane() {
        let c = combiner(2, 2);
        let mut first = submit(&c, "a", 1, 1).unwrap().unwrap();
        assert_eq!(next(&mut first), Some(vec![1]));
        for (key, n) in [("b", 2), ("b", 3), ("c", 4), ("c", 5), ("d", 6)] {
            assert!(submit(&c, key, n, 1).unwrap().is_none());
        }
        assert_eq!(next(&mut first), Some(vec![2, 3]));
        let mut second = first.another().unwrap();
        assert!(first.another().is_none(), "two lanes and no more");
        assert_eq!(next(&mut second), Some(vec![4, 5]));
        assert_eq!(next(&mut first), Some(vec![6]));
        assert_eq!((next(&mut second), next(&mut first)), (None, None));
    }

    #[test]
    fn a_lane_that_is_held_up_is_waited_for_by_nobody_until_it_goes_on() {
        let c = combiner(10, 3);
        let mut first = submit(&c, "a", 1, 1).unwrap().unwrap();
        next(&mut first);
        assert!(first.is_held_up().is_none(), "nobody waits for it");
        let mut second = submit(&c, "b", 2, 1).unwrap().unwrap();
        next(&mut second);
        assert!(submit(&c, "c", 3, 1).unwrap().is_none(), "the second is quick");
        assert_eq!(next(&mut second), Some(vec![3]));
        assert_eq!(next(&mut second), None);
        assert_eq!(next(&mut first), None);
        assert_eq!(c.state().held_up, 0);
    }

    #[test]
    fn keys_that_are_quarantined_hold_up_only_themselves() {
        let c = combiner(10, 1);
        let mut lane = submit(&c, "b", 1, 1).unwrap().unwrap();
        for (key, n) in [("b", 2), ("c", 3)] {
            submit(&c, key, n, 1).unwrap();
        }
        assert_eq!(next(&mut lane), Some(vec![1, 2, 3]));
        let quarantine = lane.quarantine(&["c"]);
        submit(&c, "c", 4, 1).unwrap();
        submit(&c, "d", 5, 1).unwrap();
        assert_eq!(next(&mut lane), Some(vec![5]), "c is not to be had");
        assert_eq!(next(&mut lane), None);
        let mut lane = quarantine.end().expect("one of c waits");
        assert_eq!(next(&mut lane), Some(vec![4]));
        assert_eq!(next(&mut lane), None);
        let state = c.state();
        assert_eq!((state.lanes, state.held_up, state.keys.len()), (0, 0, 0));
    }

    #[test]
    fn those_who_have_gone_take_nobodys_place() {
        let c = combiner(10, 1);
        let mut lane = submit(&c, "a", 0, 1).unwrap().unwrap();
        next(&mut lane);
        for n in [100, 101, 102] {
            submit(&c, "a", n, 1).unwrap();
        }
        assert!(submit(&c, "a", 1, 1).is_ok(), "three have gone");
        assert_eq!(next(&mut lane), Some(vec![1]));
    }

    #[test]
    fn a_key_takes_so_many_and_refuses_the_next() {
        let c = combiner(10, 1);
        let mut lane = submit(&c, "a", 0, 1).unwrap().unwrap();
        next(&mut lane);
        for n in 1..4 {
            submit(&c, "a", n, 1).unwrap();
        }
        assert_eq!(submit(&c, "a", 4, 1).err(), Some(Full), "one being decided and three waiting");
        assert!(submit(&c, "b", 5, 1).is_ok());
    }

    #[test]
    fn what_nobody_wants_is_not_taken() {
        let c = combiner(10, 1);
        let mut lane = submit(&c, "a", 1, 1).unwrap().unwrap();
        submit(&c, "a", 2, 1).unwrap();
        submit(&c, "b", 3, 1).unwrap();
        assert_eq!(lane.next(|n| n % 2 == 0), Some(vec![2]));
        assert_eq!(next(&mut lane), None);
        assert!(c.state().keys.is_empty());
    }

    #[test]
    fn a_lane_that_breaks_down_gives_its_keys_back() {
        let c = combiner(10, 1);
        let mut lane = submit(&c, "a", 1, 1).unwrap().unwrap();
        next(&mut lane);
        submit(&c, "a", 2, 1).unwrap();
        drop(lane);
        let mut lane = submit(&c, "a", 3, 1).unwrap().unwrap();
        assert_eq!(next(&mut lane), Some(vec![2, 3]));
    }
}
