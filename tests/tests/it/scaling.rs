//! What KEDA is told: the runs that are needed, an error where that can't be known, and the same in `/metrics`.
use futures_util::StreamExt;
use gavel_proto::externalscaler as keda;
use gavel_tests::{Api, Failure, System, eventually, settle};
use poem_grpc::Code;
use sqlxmq::JobBuilder;
use std::time::{Duration, Instant};

fn object(metadata: &[(&str, &str)]) -> keda::ScaledObjectRef {
    let metadata = metadata.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    keda::ScaledObjectRef { scaler_metadata: metadata.collect(), ..Default::default() }
}

async fn needed(api: &Api, metadata: &[(&str, &str)]) -> Result<i64, Failure> {
    let asked = keda::GetMetricsRequest { scaled_object_ref: Some(object(metadata)), metric_name: String::new() };
    let (request, seen) = api.request(asked);
    let reply = settle(api.scaler.get_metrics(request).await, &seen)?;
    assert_eq!(reply.metric_values.len(), 1);
    let value = &reply.metric_values[0];
    assert!((value.metric_value_float - f64::from(i32::try_from(value.metric_value).expect("small"))).abs() < 1e-9);
    Ok(value.metric_value)
}

async fn is_active(api: &Api) -> bool {
    let (request, seen) = api.request(object(&[("queue", "close_item")]));
    settle(api.scaler.is_active(request).await, &seen).expect("answered").result
}

async fn enqueue(system: &System, jobs: usize) {
    for _ in 0..jobs {
        let mut job = JobBuilder::new("close_item");
        job.set_channel_name("close_item")
            .set_json(&serde_json::json!({ "item_id": uuid::Uuid::new_v4() }))
            .expect("JSON");
        job.spawn(&system.db).await.expect("enqueued");
    }
}

async fn run(system: &System, sql: &'static str) {
    sqlx::query(sql).execute(&system.db).await.expect("done");
}

#[tokio::test]
async fn so_many_runs_are_asked_for_as_drain_the_queue_in_time() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let target = [("queue", "close_item"), ("targetSeconds", "10")];
    assert_eq!(needed(&api, &target).await, Ok(0));
    assert!(!is_active(&api).await);
    enqueue(&system, 100).await;
    assert!(is_active(&api).await);
    assert_eq!(needed(&api, &target).await, Ok(1), "nothing was measured yet: one finds out");
    run(&system, "INSERT INTO job_queues (kind, mean_ms) VALUES ('close_item', 1000)").await;
    assert_eq!(needed(&api, &target).await, Ok(10), "100 jobs of a second each within ten");
    run(&system, "DELETE FROM mq_msgs WHERE channel_name = 'close_item'").await;
    run(
        &system,
        "INSERT INTO job_loads (worker_id, kind, concurrency, running, mean_ms)
                  VALUES (uuid_generate_v4(), 'close_item', 8, 7, 1000)",
    )
    .await;
    assert_eq!(needed(&api, &target).await, Ok(7), "what runs is counted");
    let (request, seen) = api.request(object(&[("queue", "close_item"), ("concurrency", "8")]));
    let spec = settle(api.scaler.get_metric_spec(request).await, &seen).expect("answered").metric_specs.remove(0);
    assert_eq!((spec.metric_name.as_str(), spec.target_size), ("gavel-close-item-needed-concurrency", 8));
}

#[tokio::test]
async fn what_cant_be_known_is_an_error_and_never_zero() {
    let system = System::new().await;
    let (service, api) = system.service().await;
    let unknown = needed(&api, &[("queue", "no_such_queue")]).await.expect_err("unknown");
    assert_eq!(unknown.code, Code::NotFound);
    assert!(unknown.message.contains("no_such_queue") && unknown.message.contains("close_item"), "{unknown:?}");
    let unnamed = needed(&api, &[]).await.expect_err("no queue is named");
    assert_eq!(unnamed.code, Code::InvalidArgument);
    let bad = needed(&api, &[("queue", "close_item"), ("targetSeconds", "soon")]).await.expect_err("no number");
    assert!(bad.code == Code::InvalidArgument && bad.message.contains("targetSeconds"), "{bad:?}");

    let scrape = || service.metrics();
    let figure = "gavel_job_queue_waiting{kind=\"close_item\"";
    eventually("the gauge is there", scrape, |text| text.contains(figure)).await;
    run(&system, "ALTER TABLE mq_msgs RENAME TO mq_msgs_elsewhere").await;
    let failed = needed(&api, &[("queue", "close_item")]).await.expect_err("the table is gone");
    assert_eq!(failed.code, Code::Internal);
    eventually("the gauge is gone as well", scrape, |text| !text.contains(figure)).await;
    run(&system, "ALTER TABLE mq_msgs_elsewhere RENAME TO mq_msgs").await;
    enqueue(&system, 3).await;
    let same = |text: &String| text.lines().any(|line| line.starts_with(figure) && line.ends_with(" 3"));
    eventually("the gauge says what the scaler counts", scrape, same).await;
}

#[tokio::test]
async fn a_change_is_pushed() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let (request, _) = api.request(object(&[("queue", "close_item")]));
    let mut pushed = api.scaler.stream_is_active(request).await.expect("open").into_inner();
    assert!(!pushed.next().await.expect("one").expect("answered").result, "what is comes first");
    enqueue(&system, 1).await;
    assert!(pushed.next().await.expect("one").expect("answered").result);
    run(&system, "DELETE FROM mq_msgs WHERE channel_name = 'close_item'").await;
    assert!(!pushed.next().await.expect("one").expect("answered").result);
}

#[tokio::test]
async fn while_the_database_is_out_of_reach_the_metric_is_described_and_its_value_is_unavailable_at_once() {
    let system = System::proxied().await;
    let (_service, api) = system.service().await;
    let close_item = [("queue", "close_item")];
    assert_eq!(needed(&api, &close_item).await, Ok(0));
    let (request, _) = api.request(object(&close_item));
    let mut active = api.scaler.stream_is_active(request).await.expect("open").into_inner();
    assert!(!active.next().await.expect("one").expect("answered").result);

    let wire = system.database_wire.as_ref().expect("asked for");
    wire.cut();
    let (request, seen) = api.request(object(&close_item));
    let described = settle(api.scaler.get_metric_spec(request).await, &seen).expect("it needs no database");
    assert_eq!(described.metric_specs[0].metric_name, "gavel-close-item-needed-concurrency");
    let (request, _) = api.request(object(&close_item));
    let mut streamed = api.scaler.stream_metric_spec(request).await.expect("open").into_inner();
    assert_eq!(streamed.next().await.expect("one").expect("answered"), described);
    let (request, seen) = api.request(object(&[("queue", "nothing")]));
    assert_eq!(settle(api.scaler.get_metric_spec(request).await, &seen).expect_err("unknown").code, Code::NotFound);
    // From when the loss is known, which takes no more than a look.
    let asked = || async {
        let began = Instant::now();
        let code = needed(&api, &close_item).await.expect_err("there is no answer").code;
        (code, began.elapsed() < Duration::from_secs(1))
    };
    eventually("it is unavailable, at once", asked, |seen| *seen == (Code::Unavailable, true)).await;

    wire.mend();
    enqueue(&system, 1).await;
    // The look that failed meanwhile has ended nothing.
    assert!(active.next().await.expect("the stream goes on").expect("answered").result);
    assert!(active.next().await.expect("it is said again").expect("answered").result, "while it lasts");
}

#[tokio::test]
async fn a_database_that_says_nothing_any_more_is_unavailable_at_once_and_not_busy_for_ever() {
    let system = System::proxied().await;
    let (_service, api) = system.service().await;
    assert_eq!(needed(&api, &[("queue", "close_item")]).await, Ok(0));
    let wire = system.database_wire.as_ref().expect("asked for");
    wire.silence();
    let asked = || async {
        let began = Instant::now();
        let code = needed(&api, &[("queue", "close_item")]).await.expect_err("there is no answer").code;
        (code, began.elapsed() < Duration::from_secs(4))
    };
    eventually("it is found to be gone", asked, |seen| *seen == (Code::Unavailable, true)).await;
    wire.mend();
    let answered = || needed(&api, &[("queue", "close_item")]);
    eventually("and found again", answered, |answer| *answer == Ok(0)).await.expect("there is an answer");
}

#[tokio::test]
async fn a_drain_ends_the_streams_of_the_autoscaler_well() {
    let system = System::new().await;
    let (mut service, api) = system.service().await;
    let (request, _) = api.request(object(&[("queue", "close_item")]));
    let mut active = api.scaler.stream_is_active(request).await.expect("open").into_inner();
    assert!(!active.next().await.expect("one").expect("answered").result);
    service.terminate();
    assert!(active.next().await.is_none(), "with OK: an error would be counted against the scaler");
    assert!(service.ended().await.success());
}
