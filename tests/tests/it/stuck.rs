//! A job that can't be settled, one that a foreign runner gave up, a queue that stands still, an auction that nobody
//! closes: each is seen and named, and none holds up the others.
use crate::broker::doctor;
use chrono::{TimeDelta, Utc};
use gavel_proto::v1::{self, ItemStatus};
use gavel_tests::{Api, Process, System, eventually, settle};
use poem_grpc::Code;
use serde_json::Value;
use uuid::Uuid;

async fn run(system: &System, sql: &str) {
    sqlx::query(sql).execute(&system.db).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

async fn item_ending_in(system: &System, api: &Api, seconds: i64) -> String {
    let ends_at = Utc::now() + TimeDelta::seconds(seconds);
    api.with_token(system.token("sam", "seller")).create("A lamp", ends_at).await.item_id
}

async fn status(api: &Api, item: &str) -> ItemStatus {
    api.item(item).await.expect("shown").item.expect("an item").status()
}

/// A close job as somebody's SQL might have left it, due before all others.
async fn enqueue(system: &System, id: Uuid, args: &str) {
    let job = "INSERT INTO mq_msgs (id, channel_name, channel_args, args, attempt_at, after_message_id)
               VALUES ($1, 'close_item', '', $2::json, now() - interval '1 hour', NULL)";
    sqlx::query(job).bind(id).bind(args).execute(&system.db).await.expect("enqueued");
}

/// Kind and error of each dead job.
async fn dead(system: &System) -> Vec<(Uuid, String)> {
    let dead = "SELECT job_id, last_error FROM dead_jobs ORDER BY died_at";
    sqlx::query_as(dead).fetch_all(&system.db).await.expect("read")
}

/// Returns what is wrong with that, as the doctor says; it has these words.
async fn wrong(system: &System, service: &Process, what: &str, words: &str) -> String {
    let found = || async {
        let findings = doctor(system, &[], service).await;
        let says = |finding: &Value| finding["detail"].as_str().is_some_and(|detail| detail.contains(words));
        findings.into_iter().find(|finding| finding["what"] == what && finding["ok"] == false && says(finding))
    };
    let found: Option<Value> = eventually("the doctor names it", found, Option::is_some).await;
    found.expect("found")["detail"].as_str().expect("text").to_owned()
}

#[tokio::test]
async fn whatever_a_dead_job_holds_it_is_dead_lettered_and_its_queue_goes_on() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let item = item_ending_in(&system, &api, 2).await;
    let (with_nul, known, extreme) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    enqueue(&system, with_nul, r#"{"item_id": "\u0000"}"#).await;
    enqueue(&system, known, r#"{"item_id": 7}"#).await;
    run(&system, &format!("INSERT INTO dead_jobs (job_id, kind, correlation_id, attempts, last_error, enqueued_at) VALUES ('{known}', 'close_item', '', 1, 'died before', now())")).await;
    enqueue(&system, extreme, r#"{"item_id": [1e400]}"#).await;
    run(&system, &format!("UPDATE mq_msgs SET tries = 2147483647, attempts = 2147483647, channel_args = repeat('k', 10000) WHERE id = '{extreme}'")).await;
    let _worker = system.worker().await;
    eventually("the auction behind them is closed", || status(&api, &item), |status| *status == ItemStatus::Closed)
        .await;
    let dead = eventually("all three are dead", || dead(&system), |dead| dead.len() == 4).await;
    assert!(dead.iter().any(|(id, _)| *id == with_nul) && dead.iter().any(|(id, _)| *id == extreme), "{dead:?}");
    let kept = "SELECT arguments::text FROM dead_jobs WHERE job_id = $1";
    let kept: String = sqlx::query_scalar(kept).bind(with_nul).fetch_one(&system.db).await.expect("read");
    assert_eq!(kept, r#"{"item_id": "\u0000"}"#, "as it was enqueued");
}

#[tokio::test]
async fn a_job_that_can_not_be_settled_is_put_off_for_the_others_and_is_named() {
    let system = System::new().await;
    let (service, api) = system.service().await;
    let item = item_ending_in(&system, &api, 2).await;
    let [stubborn, immovable] = [Uuid::new_v4(), Uuid::new_v4()];
    for job in [stubborn, immovable] {
        enqueue(&system, job, r#"{"item_id": "no id"}"#).await;
    }
    for statement in [
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'not this one'; END $$"
            .to_owned(),
        format!(
            "CREATE TRIGGER keep BEFORE DELETE ON mq_msgs FOR EACH ROW WHEN (OLD.id IN ('{stubborn}', '{immovable}')) EXECUTE FUNCTION refuse()"
        ),
        format!(
            "CREATE TRIGGER fix BEFORE UPDATE ON mq_msgs FOR EACH ROW WHEN (OLD.id = '{immovable}') EXECUTE FUNCTION refuse()"
        ),
    ] {
        run(&system, &statement).await;
    }
    let _worker = system.worker().await;
    eventually("the auction behind them is closed", || status(&api, &item), |status| *status == ItemStatus::Closed)
        .await;
    wrong(&system, &service, "queue close_item", "put off").await;
    let faulty = |metrics: &String| {
        let figure = "gavel_job_queue_faulty{kind=\"close_item\"";
        metrics.lines().any(|line| line.starts_with(figure) && line.ends_with(" 1"))
    };
    eventually("a gauge counts it", || service.metrics(), faulty).await;
    for trigger in ["keep", "fix"] {
        run(&system, &format!("DROP TRIGGER {trigger} ON mq_msgs")).await;
    }
    run(&system, "UPDATE mq_msgs SET attempt_at = now() WHERE faults > 0").await;
    eventually("it is dead once it can be", || dead(&system), |dead| dead.iter().any(|(id, _)| *id == stubborn)).await;
}

#[tokio::test]
async fn a_job_that_can_not_be_settled_for_want_of_room_steps_aside_after_a_lease() {
    let system = System::new().await;
    let (service, api) = system.service().await;
    let item = item_ending_in(&system, &api, 2).await;
    let swollen = Uuid::new_v4();
    enqueue(&system, swollen, r#"{"item_id": "no id"}"#).await;
    run(
        &system,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           RAISE EXCEPTION 'no room' USING ERRCODE = 'disk_full'; END $$",
    )
    .await;
    let keep = format!(
        "CREATE TRIGGER keep BEFORE DELETE ON mq_msgs FOR EACH ROW WHEN (OLD.id = '{swollen}') EXECUTE FUNCTION refuse()"
    );
    run(&system, &keep).await;
    let _worker = system.worker_with(&[], &[("GAVEL_LEASE_MS", "2000")]).await;
    eventually("the auction behind it is closed", || status(&api, &item), |status| *status == ItemStatus::Closed).await;
    wrong(&system, &service, "queue close_item", "put off").await;
}

#[tokio::test]
async fn a_queue_that_makes_no_progress_is_named_by_the_doctor_and_a_gauge() {
    let system = System::new().await;
    let (service, _) = system.service().await;
    enqueue(&system, Uuid::new_v4(), r#"{"item_id": "no id"}"#).await;
    let found = wrong(&system, &service, "queue close_item", "no worker runs it").await;
    assert!(found.contains("1 jobs wait"), "{found}");
    let stands_still = |metrics: &String| {
        let figure = "gavel_job_queue_standing_still{kind=\"close_item\"";
        metrics.lines().any(|line| line.starts_with(figure) && line.ends_with(" 1"))
    };
    eventually("a gauge says so", || service.metrics(), stands_still).await;
}

#[tokio::test]
async fn a_job_that_a_foreign_runner_gave_up_is_shown_as_that_and_buried_in_the_end() {
    let system = System::new().await;
    let (service, api) = system.service().await;
    let given_up = Uuid::new_v4();
    enqueue(&system, given_up, r#"{"item_id": "no id"}"#).await;
    // What the crate sqlxmq makes of a job whose last try it begins.
    let begun = format!("UPDATE mq_msgs SET attempts = 0, attempt_at = NULL WHERE id = '{given_up}'");
    run(&system, &begun).await;
    let ops = api.with_token(system.token("olga", "ops"));
    let (request, seen) = ops.request(v1::GetJobRequest { job_id: given_up.to_string() });
    let job = settle(ops.ops.get_job(request).await, &seen).expect("shown").job.expect("a job");
    assert_eq!((job.state(), job.at), (v1::JobState::Exhausted, None), "{job:?}");
    wrong(&system, &service, "queue close_item", "sqlxmq").await;
    // The hour that a last try is given is over.
    let over = format!(
        "UPDATE mq_msgs SET lease_token = '{}', leased_until = now() - interval '1 s' WHERE id = '{given_up}'",
        Uuid::max()
    );
    run(&system, &over).await;
    let _worker = system.worker().await;
    let dead = eventually("it is dead", || dead(&system), |dead| !dead.is_empty()).await;
    assert!(dead[0].0 == given_up && dead[0].1.contains("sqlxmq"), "{dead:?}");
}

#[tokio::test]
async fn an_auction_whose_close_job_was_cancelled_and_discarded_is_not_shown_as_open_is_named_and_closes() {
    let system = System::new().await;
    let (service, api) = system.service().await;
    let item = item_ending_in(&system, &api, 2).await;
    let bidder = api.with_token(system.token("alice", "bidder"));
    bidder.bid(&item, 1_000).await.expect("accepted");
    run(&system, "DELETE FROM mq_msgs WHERE channel_name = 'close_item'").await;
    let is_over = || status(&api, &item);
    eventually("it is past its end", is_over, |status| *status == ItemStatus::Closing).await;
    let shown = api.item(&item).await.expect("shown").item.expect("an item");
    assert_eq!(shown.next_minimum_minor, 0, "there is no next bid");
    assert_eq!(bidder.bid(&item, 5_000).await.expect_err("it is over").code, Code::FailedPrecondition);
    let open = v1::ListItemsRequest { status: ItemStatus::Open.into(), ..Default::default() };
    assert!(api.items(open).await.expect("listed").items.is_empty(), "nor is it listed as open");

    let what = "auctions past their end and not closed";
    let found = wrong(&system, &service, what, "the oldest").await;
    assert!(found.starts_with('1'), "{found}");
    let overdue = |metrics: &String| {
        let figure = "gavel_overdue{";
        metrics
            .lines()
            .any(|line| line.starts_with(figure) && line.contains("close_overdue_items") && line.ends_with(" 1"))
    };
    eventually("a gauge counts it", || service.metrics(), overdue).await;
    let _worker = system.worker().await;
    eventually("it is closed all the same", is_over, |status| *status == ItemStatus::Closed).await;
    let won = || async { bidder.stats("").await.expect("alice may").stats.first().map(|stats| stats.items_won) };
    eventually("and won", won, |won| *won == Some(1)).await;
}
