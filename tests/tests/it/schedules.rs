//! Schedules across two workers after an hour in which none ran.
use chrono::{DateTime, TimeDelta, Utc};
use gavel_runtime::{
    App, Result, Tx,
    config::{Backends, Env},
    schedule::{self, CatchUp, CronSchedule, Tick},
    spec::{Spec, Trigger},
    testing::Worker,
};
use gavel_tests::{System, eventually};
use std::{collections::BTreeSet, time::Duration};

struct All;
struct One;
struct Skip;

macro_rules! every_minute {
    ($handler:ty, $name:literal, $catch_up:expr) => {
        impl schedule::TxHandler for $handler {
            const SPEC: &'static Spec =
                &Spec::new($name, Trigger::Schedule(CronSchedule::cron("* * * * *").catch_up($catch_up)));

            async fn handle(tx: &mut Tx, tick: Tick) -> Result<()> {
                let minute = sqlx::query("INSERT INTO minutes (schedule, tick_at) VALUES ($1, $2)").bind($name);
                minute.bind(tick.due_at).execute(tx.conn()).await?;
                Ok(())
            }
        }
    };
}
every_minute!(All, "all", CatchUp::All);
every_minute!(One, "one", CatchUp::One);
every_minute!(Skip, "none", CatchUp::None);

fn app() -> App {
    App::new("schedules", &gavel::EXPAND).schedule_tx::<All>().schedule_tx::<One>().schedule_tx::<Skip>()
}

async fn ticks(system: &System, schedule: &str) -> Vec<DateTime<Utc>> {
    sqlx::query_scalar("SELECT tick_at FROM minutes WHERE schedule = $1 ORDER BY tick_at")
        .bind(schedule)
        .fetch_all(&system.db)
        .await
        .expect("read")
}

#[tokio::test]
async fn a_missed_hour_is_caught_up_on_as_each_policy_says_and_no_tick_runs_twice() {
    let system = System::new().await;
    let prepare = [
        "CREATE TABLE minutes (schedule text NOT NULL, tick_at timestamptz NOT NULL)",
        "INSERT INTO schedule_ticks (schedule, tick_at)
         SELECT name, date_trunc('minute', now()) - interval '1 hour' FROM unnest('{all,one,none}'::text[]) name",
    ];
    for statement in prepare {
        sqlx::query(statement).execute(&system.db).await.expect("prepared");
    }
    let started: DateTime<Utc> = sqlx::query_scalar("SELECT now()").fetch_one(&system.db).await.expect("read");
    // Of the moment that was prepared: another minute may have begun since.
    let minute: DateTime<Utc> = sqlx::query_scalar("SELECT max(tick_at) + interval '1 hour' FROM schedule_ticks")
        .fetch_one(&system.db)
        .await
        .expect("read");
    let mut env = Env::new(system.variables(&[]));
    let backends = Backends::from_env(&mut env);
    env.finish().expect("the harness sets everything");
    let workers = [(); 2].map(|()| Worker::start(app(), &backends).expect("valid"));
    let behind = || async {
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM schedule_ticks WHERE tick_at < $1")
            .bind(minute)
            .fetch_one(&system.db)
            .await
            .expect("counted")
    };
    eventually("every schedule has caught up", behind, |n| *n == 0).await;
    for worker in workers {
        worker.stop(Duration::from_secs(20)).await.expect("stopped");
    }
    let (all, one, none) = (ticks(&system, "all").await, ticks(&system, "one").await, ticks(&system, "none").await);
    for (policy, ticks) in [("all", &all), ("one", &one), ("none", &none)] {
        assert_eq!(ticks.len(), ticks.iter().collect::<BTreeSet<_>>().len(), "{policy}: a tick ran twice: {ticks:?}");
    }
    // Where a minute began meanwhile there is one tick more of each.
    assert_eq!(all.first(), Some(&(minute - TimeDelta::minutes(59))));
    assert!(all.windows(2).all(|pair| pair[1] - pair[0] == TimeDelta::minutes(1)), "none is left out: {all:?}");
    assert_eq!(all.get(59), Some(&minute), "sixty were missed");
    let newest = [minute, minute + TimeDelta::minutes(1)];
    assert!(one.first().is_some_and(|tick| newest.contains(tick)), "the newest, for all: {one:?}");
    assert!(one.len() <= newest.len(), "and no other: {one:?}");
    assert!(none.iter().all(|tick| *tick > started - TimeDelta::seconds(10)), "only what is on time: {none:?}");
}
