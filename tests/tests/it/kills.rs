//! Workers killed at every boundary of claim, run and complete: each job's effect is there exactly once.
use gavel_tests::{Process, System, eventually, process::binary};
use sqlxmq::JobBuilder;

async fn prepared() -> System {
    let system = System::new().await;
    for statement in [
        "CREATE TABLE notes (n bigint GENERATED ALWAYS AS IDENTITY, text text NOT NULL)",
        "CREATE TABLE ticks (tick_at timestamptz NOT NULL)",
    ] {
        sqlx::query(statement).execute(&system.db).await.expect("prepared");
    }
    system
}

/// For each boundary: a job, a worker that dies there with it, and another that finishes.
async fn dies_at_each(kind: &str, boundaries: &[&str]) {
    let system = prepared().await;
    for boundary in boundaries {
        let mut job = JobBuilder::new(kind);
        job.set_channel_name(kind).set_retries(2).set_json(&serde_json::json!({ "how": boundary })).expect("JSON");
        job.spawn(&system.db).await.expect("enqueued");
        let fault = format!("{kind}.{boundary}=abort@1");
        let program = &binary("probe-worker");
        let variables = |fault: &str| system.variables(&[("GAVEL_LEASE_MS", "1500"), ("GAVEL_FAILPOINTS", fault)]);
        let mut doomed = Process::start(program, &[], &variables(&fault));
        assert!(!doomed.ended().await.success(), "{kind}: the worker was meant to die at {boundary}");
        let _other = Process::start(program, &[], &variables(""));
        let queued = || async {
            let count = "SELECT count(*) FROM mq_msgs WHERE id <> uuid_nil()";
            sqlx::query_scalar::<_, i64>(count).fetch_one(&system.db).await.expect("counted")
        };
        eventually("another worker finishes", queued, |n| *n == 0).await;
    }
    let notes: Vec<String> =
        sqlx::query_scalar("SELECT text FROM notes ORDER BY n").fetch_all(&system.db).await.expect("read");
    assert_eq!(notes, boundaries, "each once");
    let dead: i64 = sqlx::query_scalar("SELECT count(*) FROM dead_jobs").fetch_one(&system.db).await.expect("counted");
    assert_eq!(dead, 0);
}

#[tokio::test]
async fn a_tx_job_has_its_effect_once() {
    dies_at_each("misbehave", &["after_claim", "before_commit", "after_commit"]).await;
}

#[tokio::test]
async fn a_leased_job_that_completes_with_its_effects_has_them_once() {
    dies_at_each("carry", &["after_claim", "before_commit", "after_commit"]).await;
}

#[tokio::test]
async fn a_leased_job_that_is_completed_in_a_group_runs_again_where_its_completion_was_lost() {
    dies_at_each("tally", &["after_claim", "before_complete", "after_complete"]).await;
}
