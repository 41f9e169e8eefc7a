//! A job that does what it is told, mostly wrong.
use crate::{
    jobs::{InOrder, Ranked, Together},
    note, tries,
};
use gavel_runtime::{
    Class, Error, Event, Result, Tx, ids,
    job::{self, Job, Options, Priority, Unique, Verdict},
    spec::{Limits, Queue, Spec, Trigger},
};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What each job does.
#[derive(Serialize, Deserialize)]
pub(crate) struct Do {
    how: String,
}

impl Job for Do {
    const KIND: &'static str = "misbehave";
    const RETRIES: u32 = 2;
}

pub(crate) struct Misbehave;

impl job::TxHandler for Misbehave {
    const SPEC: &'static Spec = &Spec::new("misbehave", Trigger::Job(Queue::TX)).limits(Limits {
        timeout: Duration::from_secs(2),
        retries: 2,
        concurrency: 2,
    });
    type Job = Do;

    async fn handle(tx: &mut Tx, job: &Do) -> Result<Verdict> {
        note(tx, &job.how).await?;
        match job.how.as_str() {
            "work" => {
                let event = Event {
                    event_id: ids::ordered(),
                    key: "probe".to_owned(),
                    version: 1,
                    routing_key: "probe.worked",
                    message_type: "google.protobuf.Empty".to_owned(),
                    payload: Vec::new(),
                };
                tx.emit(event)?;
                Ok(Verdict::Done)
            }
            "fail twice" if tries(tx).await? < 3 => Err(Error::internal(std::io::Error::other("not yet"))),
            "be hopeless" => Err(Error::invalid("this can't be done")),
            "panic" => panic!("as asked"),
            "hang" => {
                sqlx::query("SELECT pg_sleep(60)").execute(tx.conn()).await?;
                Ok(Verdict::Done)
            }
            "swallow an error" => {
                let _ = sqlx::query("SELECT 1 / 0").execute(tx.conn()).await;
                Ok(Verdict::Done)
            }
            "retry once" if tries(tx).await? < 2 => {
                Ok(Verdict::Retry { after: Some(Duration::ZERO), why: "not now".to_owned() })
            }
            "snooze once" if tries(tx).await? < 2 => Ok(Verdict::Snooze(Duration::from_millis(10))),
            "lose its transaction" if !is_enough(tx).await? => {
                tx.invocation().cancelled.clone().cancelled().await;
                Err(Error::invalid("another attempt has it"))
            }
            "give up" => Ok(Verdict::Dead { why: "no use".to_owned() }),
            "kill" => std::process::abort(),
            how if how.starts_with("enqueue") => enqueue(tx, how).await,
            "be unavailable" => Err(Error::new(Class::Unavailable, "nothing answers")),
            _ => Ok(Verdict::Done),
        }
    }
}

/// Returns whether the test has seen enough.
async fn is_enough(tx: &mut Tx) -> Result<bool> {
    let noted = "SELECT EXISTS (SELECT FROM notes WHERE text = 'enough')";
    Ok(sqlx::query_scalar(noted).fetch_one(tx.conn()).await?)
}

/// Jobs that it hands on.
async fn enqueue(tx: &mut Tx, how: &str) -> Result<Verdict> {
    match how {
        "enqueue in order" => {
            for number in 0..10 {
                for key in ["left", "right"] {
                    tx.enqueue(&InOrder { key: key.to_owned(), number }, Duration::ZERO).await?;
                }
            }
            Ok(Verdict::Done)
        }
        "enqueue by priority" => {
            for priority in [Priority::Low, Priority::Normal, Priority::High, Priority::Urgent] {
                let job = Ranked { how: format!("{priority:?}") };
                tx.enqueue(&job, Options::new().delay(Duration::from_millis(1)).priority(priority)).await?;
            }
            Ok(Verdict::Done)
        }
        "enqueue uniquely" => {
            let once = |how: &str| (Do { how: how.to_owned() }, Options::new().delay(Duration::from_hours(1)));
            for (how, unique) in [
                ("first", Unique::Keep("k".to_owned())),
                ("second", Unique::Keep("k".to_owned())),
                ("third", Unique::Replace("k".to_owned())),
            ] {
                let (job, options) = once(how);
                tx.enqueue(&job, options.unique(unique)).await?;
            }
            Ok(Verdict::Done)
        }
        "enqueue together, uniquely" => {
            let unique = Options::new().unique(Unique::Keep("k".to_owned()));
            tx.enqueue(&Together { how: "be unavailable".to_owned() }, unique).await?;
            Ok(Verdict::Done)
        }
        _ => Err(Error::invalid("nothing is enqueued like that")),
    }
}
