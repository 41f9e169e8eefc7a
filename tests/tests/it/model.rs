//! The queue against a model of it: random interleavings of enqueueing, claiming, crashing, completing, failing and
//! snoozing leave no difference between the two.
use gavel_runtime::{
    App, Result,
    config::{Backends, Env},
    job::{self, Attempt, Enqueued, Job, Options, Priority, Verdict},
    spec::{Queue, Spec, Trigger},
    testing::{Harness, LeasedJob},
};
use gavel_tests::System;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, rc::Rc, time::Duration};
use uuid::Uuid;

/// Tries after the first.
const RETRIES: u32 = 1;
/// Further away than any test lives.
const LATER: Duration = Duration::from_hours(24);

#[derive(Serialize, Deserialize)]
struct Free;

impl Job for Free {
    const KIND: &'static str = "free";
    const RETRIES: u32 = RETRIES;
}

#[derive(Serialize, Deserialize)]
struct InOrder {
    key: u8,
}

impl Job for InOrder {
    const KIND: &'static str = "in_order";
    const RETRIES: u32 = RETRIES;
    const PER_KEY: Option<u32> = Some(1);

    fn key(&self) -> String {
        format!("key {}", self.key)
    }
}

macro_rules! never_runs {
    ($job:ty, $name:literal) => {
        impl job::IoHandler for $job {
            const SPEC: &'static Spec = &Spec::new($name, Trigger::Job(Queue::IO))
                .limits(gavel_runtime::spec::Limits::DEFAULT.retries(RETRIES));
            type Job = Self;

            async fn handle(_: &Attempt, _: &Self) -> Result<Verdict> {
                unreachable!("the test takes every step itself")
            }
        }
    };
}
never_runs!(Free, "free");
never_runs!(InOrder, "in_order");

fn app() -> App {
    App::new("model", &gavel::EXPAND).job_io::<Free>().job_io::<InOrder>()
}

/// One step. Numbers choose among what there is.
#[derive(Debug, Clone)]
enum Step {
    Enqueue {
        key: Option<u8>,
        priority: u8,
        unique: Option<u8>,
        later: bool,
    },
    Claim {
        in_order: bool,
        most: usize,
    },
    Complete(usize),
    Fail {
        leased: usize,
        later: bool,
    },
    Snooze {
        leased: usize,
        later: bool,
    },
    /// Every worker dies: all leases run out.
    Crash,
    /// Two days go by.
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    let enqueue =
        (proptest::option::of(0_u8..2), 0_u8..4, proptest::option::weighted(0.3, 0_u8..2), any::<bool>()).prop_map(
            |(key, priority, unique, later)| Step::Enqueue { key, priority, unique, later: later && priority == 0 },
        );
    prop_oneof![
        6 => enqueue,
        5 => (any::<bool>(), 1_usize..4).prop_map(|(in_order, most)| Step::Claim { in_order, most }),
        5 => (0_usize..6).prop_map(Step::Complete),
        3 => (0_usize..6, any::<bool>()).prop_map(|(leased, later)| Step::Fail { leased, later }),
        1 => (0_usize..6, any::<bool>()).prop_map(|(leased, later)| Step::Snooze { leased, later }),
        1 => Just(Step::Crash),
        1 => Just(Step::Wait),
    ]
}

/// What the model knows of a queued job.
#[derive(Debug, Clone)]
struct Known {
    key: Option<u8>,
    priority: u8,
    unique: Option<u8>,
    /// The day on which it is due, 0 being today, and the moment.
    due: (i64, u64),
    seq: u64,
    tries_left: u32,
    deaths: i32,
    /// The hand that leases it, and whether that lease still holds.
    lease: Option<(usize, bool)>,
}

#[derive(Default)]
struct Model {
    queued: BTreeMap<Uuid, Known>,
    completed: Vec<Uuid>,
    dead: usize,
    clock: u64,
}

impl Model {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Returns what a claim may take, in its order: no lease that holds, due, and of a key only its oldest.
    fn claimable(&self, in_order: bool) -> Vec<Uuid> {
        let oldest = |job: &Known| {
            job.key.is_none() || !self.queued.values().any(|other| other.key == job.key && other.seq < job.seq)
        };
        let free =
            |job: &&Known| job.key.is_some() == in_order && !job.lease.is_some_and(|lease| lease.1) && oldest(job);
        let mut due: Vec<_> = self.queued.iter().filter(|(_, job)| job.due.0 <= 0 && free(job)).collect();
        due.sort_by_key(|(_, job)| (job.priority, job.due, job.seq));
        due.into_iter().map(|(id, _)| *id).collect()
    }

    /// The job, if that hand's lease was not taken over.
    fn held(&mut self, leased: usize, id: Uuid) -> Option<&mut Known> {
        self.queued.get_mut(&id).filter(|job| job.lease.is_some_and(|lease| lease.0 == leased))
    }
}

struct Bench<'a> {
    harness: &'a Harness,
    model: Model,
    hands: Vec<Rc<LeasedJob>>,
}

impl Bench<'_> {
    async fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Enqueue { key, priority, unique, later } => self.enqueue(key, priority, unique, later).await?,
            Step::Claim { in_order, most } => self.claim(in_order, most).await?,
            Step::Complete(leased) => self.complete(leased).await?,
            Step::Fail { leased, later } => self.fail(leased, later).await?,
            Step::Snooze { leased, later } => self.snooze(leased, later).await?,
            Step::Crash => {
                self.harness.expire_leases().await.expect("expired");
                self.model.queued.values_mut().filter_map(|job| job.lease.as_mut()).for_each(|lease| lease.1 = false);
            }
            Step::Wait => {
                self.harness.advance(LATER * 2).await.expect("advanced");
                self.model.queued.values_mut().filter(|job| job.lease.is_none()).for_each(|job| job.due.0 -= 2);
            }
        }
        Ok(())
    }

    async fn enqueue(
        &mut self,
        key: Option<u8>,
        priority: u8,
        unique: Option<u8>,
        later: bool,
    ) -> Result<(), TestCaseError> {
        let level = [Priority::Urgent, Priority::High, Priority::Normal, Priority::Low][usize::from(priority)];
        let options = Options::new().priority(level).delay(if later { LATER } else { Duration::ZERO });
        let (due, seq) = (self.model.tick(), self.model.clock);
        let due = (i64::from(later), due);
        let new = Known { key, priority, unique: None, due, seq, tries_left: RETRIES + 1, deaths: 0, lease: None };
        if let Some(key) = key {
            let enqueued = self.harness.enqueue(&InOrder { key }, options).await.expect("enqueued");
            self.model.queued.insert(enqueued.job_id(), new);
            return Ok(());
        }
        let Some(unique) = unique else {
            let enqueued = self.harness.enqueue(&Free, options).await.expect("enqueued");
            self.model.queued.insert(enqueued.job_id(), new);
            return Ok(());
        };
        let options = options.unique(job::Unique::Keep(format!("unique {unique}")));
        let enqueued = self.harness.enqueue(&Free, options).await.expect("enqueued");
        let there = self.model.queued.iter().find(|(_, job)| job.unique == Some(unique)).map(|(id, _)| *id);
        match (enqueued, there) {
            (Enqueued::Kept(id), Some(there)) => prop_assert_eq!(id, there),
            (Enqueued::New(id), None) => {
                self.model.queued.insert(id, Known { unique: Some(unique), ..new });
            }
            (enqueued, there) => prop_assert!(false, "{enqueued:?} where the model has {there:?}"),
        }
        Ok(())
    }

    async fn claim(&mut self, in_order: bool, most: usize) -> Result<(), TestCaseError> {
        let claimed =
            if in_order { self.harness.claim::<InOrder>(most).await } else { self.harness.claim::<Free>(most).await };
        let claimed = claimed.expect("claimed");
        let expected: Vec<Uuid> = self.model.claimable(in_order).into_iter().take(most).collect();
        let got: Vec<Uuid> = claimed.iter().map(LeasedJob::job_id).collect();
        prop_assert_eq!(got, expected);
        for leased in claimed {
            let job = self.model.queued.get_mut(&leased.job_id()).expect("it was expected");
            job.deaths = job.deaths.max(i32::from(job.lease.is_some()));
            prop_assert_eq!(leased.deaths(), job.deaths, "whether it may be poison");
            job.lease = Some((self.hands.len(), true));
            job.unique = None;
            self.hands.push(Rc::new(leased));
        }
        Ok(())
    }

    async fn complete(&mut self, leased: usize) -> Result<(), TestCaseError> {
        let Some((leased, taken)) = self.leased(leased) else { return Ok(()) };
        let completed = taken.complete(self.harness).await.expect("asked");
        let held = self.model.held(leased, taken.job_id()).is_some();
        prop_assert_eq!(completed, held, "only the attempt that holds the job completes it");
        if held {
            self.model.queued.remove(&taken.job_id());
            prop_assert!(!self.model.completed.contains(&taken.job_id()), "completed twice");
            self.model.completed.push(taken.job_id());
        }
        Ok(())
    }

    async fn fail(&mut self, leased: usize, later: bool) -> Result<(), TestCaseError> {
        let Some((leased, taken)) = self.leased(leased) else { return Ok(()) };
        let after = if later { LATER } else { Duration::ZERO };
        let failed = taken.fail(self.harness, after).await.expect("asked");
        let due = self.model.tick();
        let held = self.model.held(leased, taken.job_id());
        prop_assert_eq!(failed, held.is_some(), "only the attempt that holds the job fails it");
        let Some(job) = held else { return Ok(()) };
        job.tries_left -= 1;
        (job.lease, job.deaths, job.due) = (None, 0, (i64::from(later), due));
        if job.tries_left == 0 {
            self.model.queued.remove(&taken.job_id());
            self.model.dead += 1;
        }
        Ok(())
    }

    async fn snooze(&mut self, leased: usize, later: bool) -> Result<(), TestCaseError> {
        let Some((leased, taken)) = self.leased(leased) else { return Ok(()) };
        let pause = if later { LATER } else { Duration::ZERO };
        let snoozed = taken.snooze(self.harness, pause).await.expect("asked");
        let due = self.model.tick();
        let held = self.model.held(leased, taken.job_id());
        prop_assert_eq!(snoozed, held.is_some(), "only the attempt that holds the job puts it off");
        if let Some(job) = held {
            (job.lease, job.deaths, job.due) = (None, 0, (i64::from(later), due));
        }
        Ok(())
    }

    /// The newest hands first, so that most steps are of attempts that still hold their job.
    fn leased(&self, back: usize) -> Option<(usize, Rc<LeasedJob>)> {
        let index = self.hands.len().checked_sub(1 + back % self.hands.len().max(1))?;
        Some((index, self.hands.get(index)?.clone()))
    }

    /// In the end, what is queued and what is dead is what the model has.
    async fn compare(&self, system: &System) -> Result<(), TestCaseError> {
        let queued: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM mq_msgs WHERE id <> uuid_nil() ORDER BY id")
            .fetch_all(&system.db)
            .await
            .expect("read");
        prop_assert_eq!(queued, self.model.queued.keys().copied().collect::<Vec<_>>());
        let dead: i64 =
            sqlx::query_scalar("SELECT count(*) FROM dead_jobs").fetch_one(&system.db).await.expect("counted");
        prop_assert_eq!(usize::try_from(dead).ok(), Some(self.model.dead));
        Ok(())
    }
}

#[test]
fn random_interleavings_leave_what_the_model_says() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (system, harness) = runtime.block_on(async {
        let system = System::new().await;
        let mut env = Env::new(system.variables(&[]));
        let backends = Backends::from_env(&mut env);
        env.finish().expect("the harness sets everything");
        // Leases end when the test says so, not when it is slow.
        let harness = Harness::new(app, &backends).expect("valid").with_lease(Duration::from_mins(10));
        (system, harness)
    });
    let config = Config { cases: 128, failure_persistence: None, ..Config::default() };
    let steps = proptest::collection::vec(step(), 1..80);
    let result = TestRunner::new(config).run(&steps, |steps| {
        runtime.block_on(async {
            for table in ["DELETE FROM mq_msgs WHERE id <> uuid_nil()", "DELETE FROM dead_jobs"] {
                sqlx::query(table).execute(&system.db).await.expect("emptied");
            }
            let mut bench = Bench { harness: &harness, model: Model::default(), hands: Vec::new() };
            for step in &steps {
                bench.take(step).await?;
            }
            bench.compare(&system).await
        })
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}
