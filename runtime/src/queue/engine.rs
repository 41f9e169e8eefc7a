//! What the job loops of one process share.
use super::{claim::Cursor, stop::Stop};
use crate::base::spec::{Queue, Spec, Trigger};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// One kind of job in this process.
pub(crate) struct Kind {
    pub(crate) spec: &'static Spec,
    pub(crate) queue: Queue,
    /// How many of one key may run at once, set once this process runs the kind.
    per_key: OnceLock<Option<u32>>,
    cursor: Mutex<Cursor>,
    /// Told when there may be something to claim.
    pub(crate) due: Notify,
    /// Set while there is something that killed a worker.
    poison: AtomicBool,
    /// Jobs that could not be settled and not even be put off, and until when this process leaves them alone.
    shunned: Mutex<Vec<(Uuid, Instant)>>,
    pub(crate) load: Load,
}

/// How busy this process is with a kind.
#[derive(Default)]
pub(crate) struct Load {
    pub(crate) running: AtomicI64,
    mean_us: AtomicU64,
    progressed_at: Mutex<Option<Instant>>,
}

impl Load {
    /// Some job was settled, done or not.
    pub(crate) fn progressed(&self) {
        *self.progressed_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Returns how long ago some job was settled last.
    pub(crate) fn since_progress(&self) -> Option<Duration> {
        self.progressed_at.lock().unwrap_or_else(PoisonError::into_inner).map(|at| at.elapsed())
    }

    /// Weighs the newest runs with an eighth.
    pub(crate) fn ran(&self, jobs: u64, took: Duration) {
        self.progressed();
        let each = u64::try_from(took.as_micros()).unwrap_or(u64::MAX) / jobs.max(1);
        let old = self.mean_us.load(Ordering::Relaxed);
        let new = if old == 0 { each.max(1) } else { (old * 7 + each) / 8 };
        self.mean_us.store(new, Ordering::Relaxed);
    }

    pub(crate) fn mean(&self) -> Duration {
        Duration::from_micros(self.mean_us.load(Ordering::Relaxed))
    }
}

impl Kind {
    fn new(spec: &'static Spec, queue: Queue) -> Self {
        Self {
            spec,
            queue,
            per_key: OnceLock::new(),
            cursor: Mutex::new(Cursor::new()),
            due: Notify::new(),
            poison: AtomicBool::new(false),
            shunned: Mutex::default(),
            load: Load::default(),
        }
    }

    /// Returns whether this process runs it.
    fn runs_here(&self) -> bool {
        self.per_key.get().is_some()
    }

    /// Returns how many of one key may run at once; no limit where none.
    pub(crate) fn per_key(&self) -> Option<u32> {
        self.per_key.get().copied().flatten()
    }

    /// Leaves a job alone for a while: others of its kind are not to wait for it.
    pub(crate) fn shun(&self, job_id: Uuid, pause: Duration) {
        let until = Instant::now() + pause;
        self.shunned.lock().unwrap_or_else(PoisonError::into_inner).push((job_id, until));
    }

    /// The jobs that are left alone.
    pub(crate) fn shunned(&self) -> Vec<Uuid> {
        let mut shunned = self.shunned.lock().unwrap_or_else(PoisonError::into_inner);
        shunned.retain(|(_, until)| *until > Instant::now());
        shunned.iter().map(|(job_id, _)| *job_id).collect()
    }

    pub(crate) fn wake(&self) {
        self.due.notify_one();
    }

    pub(crate) fn with_cursor<T>(&self, look: impl FnOnce(&mut Cursor) -> T) -> T {
        look(&mut self.cursor.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set_poison(&self, there: bool) {
        self.poison.store(there, Ordering::Relaxed);
    }

    /// Returns whether there may be a poison job; the next one asked is told no, until the poller looks again.
    pub(crate) fn take_poison(&self) -> bool {
        self.poison.swap(false, Ordering::Relaxed)
    }
}

/// A job that this process has claimed.
#[derive(Debug, Clone)]
pub(crate) struct HeldJob {
    stop: Stop,
    /// The lease to keep alive, where there is one.
    pub(crate) token: Option<Uuid>,
    pub(crate) renewed: Instant,
}

/// All kinds, and all jobs that are held. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Engine(Arc<Inner>);

struct Inner {
    worker_id: Uuid,
    lease: Duration,
    kinds: HashMap<&'static str, Arc<Kind>>,
    held: Mutex<HashMap<Uuid, HeldJob>>,
    /// Told when a lane has found nothing: the poller looks for what is due next.
    pub(crate) rescan: Notify,
    signed_on: CancellationToken,
}

impl Engine {
    pub(crate) fn new(specs: &[&'static Spec], lease: Duration) -> Self {
        let kinds = specs.iter().filter_map(|spec| match spec.trigger {
            Trigger::Job(queue) => Some((spec.name, Arc::new(Kind::new(spec, queue)))),
            _ => None,
        });
        Self(Arc::new(Inner {
            worker_id: crate::base::ids::random(),
            lease,
            kinds: kinds.collect(),
            held: Mutex::default(),
            rescan: Notify::new(),
            signed_on: CancellationToken::new(),
        }))
    }

    /// Marks the kind as run here. None when the kind is unknown or runs already.
    pub(crate) fn start(&self, spec: &'static Spec, per_key: Option<u32>) -> Option<Arc<Kind>> {
        let kind = self.0.kinds.get(spec.name)?;
        kind.per_key.set(per_key).ok()?;
        Some(kind.clone())
    }

    /// Every kind that this application knows.
    pub(crate) fn kinds(&self) -> &HashMap<&'static str, Arc<Kind>> {
        &self.0.kinds
    }

    /// Those that this process runs.
    pub(crate) fn running_kinds(&self) -> Vec<Arc<Kind>> {
        self.0.kinds.values().filter(|kind| kind.runs_here()).cloned().collect()
    }

    pub(crate) fn worker_id(&self) -> Uuid {
        self.0.worker_id
    }

    /// Returns how long a lease holds without being renewed.
    pub(crate) fn lease(&self) -> Duration {
        self.0.lease
    }

    /// Tripped after the first heartbeat. Nothing is claimed before: a job that kills every worker at once would
    /// otherwise never meet one that lives long enough to notice the deaths.
    pub(crate) fn signed_on(&self) -> &CancellationToken {
        &self.0.signed_on
    }

    pub(crate) fn rescan(&self) -> &Notify {
        &self.0.rescan
    }

    fn held<T>(&self, look: impl FnOnce(&mut HashMap<Uuid, HeldJob>) -> T) -> T {
        look(&mut self.0.held.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Remembers claimed jobs; gives what asks each handler to stop.
    pub(crate) fn hold(&self, ids: impl Iterator<Item = Uuid>, token: Option<Uuid>) -> Vec<Stop> {
        self.held(|held| {
            ids.map(|id| {
                let stop = Stop::default();
                let older = held.insert(id, HeldJob { stop: stop.clone(), token, renewed: Instant::now() });
                // An attempt of ours that lost its lease, or its transaction, without knowing.
                if let Some(older) = older {
                    older.stop.lose();
                }
                stop
            })
            .collect()
        })
    }

    /// Forgets jobs that are settled. One that was claimed anew meanwhile stays.
    pub(crate) fn forget(&self, ids: &[Uuid], stops: &[Stop]) {
        self.held(|held| {
            for (id, stop) in ids.iter().zip(stops) {
                if held.get(id).is_some_and(|mine| mine.stop.is_same(stop)) {
                    held.remove(id);
                }
            }
        });
    }

    /// The same of leased ones.
    pub(crate) fn forget_leased(&self, ids: &[Uuid], token: Uuid) {
        self.held(|held| {
            for id in ids {
                if held.get(id).is_some_and(|mine| mine.token == Some(token)) {
                    held.remove(id);
                }
            }
        });
    }

    /// Asks the handler of a job to stop, if it runs here.
    pub(crate) fn cancel(&self, id: Uuid) -> bool {
        self.held(|held| held.get(&id).map(|held| held.stop.cancel()).is_some())
    }

    /// One attempt's lease is lost: its handler is asked to stop, and not that of a newer one.
    pub(crate) fn lose_attempt(&self, id: Uuid, token: Uuid) {
        self.held(|held| {
            if let Some(held) = held.get(&id).filter(|held| held.token == Some(token)) {
                held.stop.lose();
            }
        });
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.held(|held| held.is_empty())
    }

    pub(crate) fn held_ids(&self) -> Vec<Uuid> {
        self.held(|held| held.keys().copied().collect())
    }

    /// Leases that were not renewed for `age`.
    pub(crate) fn leases_older_than(&self, age: Duration) -> Vec<(Uuid, Uuid)> {
        self.held(|held| {
            let old = held.iter().filter(|(_, held)| held.renewed.elapsed() >= age);
            old.filter_map(|(id, held)| Some((*id, held.token?))).collect()
        })
    }

    /// These leases hold again from now on.
    pub(crate) fn renewed(&self, ids: &[Uuid], at: Instant) {
        self.held(|held| {
            for id in ids {
                if let Some(held) = held.get_mut(id) {
                    held.renewed = at;
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_whose_job_was_claimed_anew_is_lost_and_takes_nothing_with_it() {
        let engine = Engine::new(&[], Duration::from_secs(1));
        let job = Uuid::from_u128(1);
        let older = engine.hold([job].into_iter(), None);
        let newer = engine.hold([job].into_iter(), None);
        assert!(older[0].is_lost() && older[0].asked().is_cancelled());
        engine.forget(&[job], &older);
        assert!(engine.cancel(job), "the newer one is still held");
        assert!(newer[0].asked().is_cancelled() && !newer[0].is_lost(), "cancelled by somebody, and not lost");
        engine.forget(&[job], &newer);
        assert!(engine.is_idle());
    }
}
