//! What strangers can make a process write: next to nothing, and never what is wrong with a server of ours in that
//! server's words.
use chrono::{TimeDelta, Utc};
use futures_util::{StreamExt, future::join_all};
use gavel_proto::v1;
use gavel_tests::{Process, System, eventually};
use poem_grpc::Code;

/// Bytes that it has written so far.
fn written(process: &Process) -> usize {
    process.output().iter().map(|line| line.len() + 1).sum()
}

#[tokio::test]
async fn reads_write_nothing_into_the_log_and_rejected_calls_next_to_nothing() {
    let system = System::new().await;
    let boundless = [("GAVEL_READS_PER_ADDRESS", "0"), ("GAVEL_READS_PER_CALLER", "0")];
    let (service, api) = system.service_with(&boundless).await;
    let _worker = system.worker().await;
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    let is_written = || async { service.output().iter().any(|line| line.contains("create_item")) };
    eventually("what was before is written", is_written, |written| *written).await;
    let (id, bad) = (item.item_id, api.with_token("nonsense".to_owned()));
    let before = written(&service);
    for _ in 0..100 {
        api.item(&id).await.expect("shown");
        api.items(v1::ListItemsRequest::default()).await.expect("listed");
        assert_eq!(api.item("nonsense").await.expect_err("no id").code, Code::InvalidArgument);
        assert_eq!(api.item("00000000-0000-4000-8000-000000000000").await.expect_err("no item").code, Code::NotFound);
    }
    let lines = service.output();
    assert_eq!(written(&service) - before, 0, "{:?}", lines.last());
    let answers = join_all((0..500).map(|_| bad.item(&id))).await;
    assert!(answers.iter().all(|answer| answer.as_ref().is_err_and(|failure| failure.code == Code::Unauthenticated)));
    let rejected = written(&service) - before;
    assert!((1..4_000).contains(&rejected), "{rejected} bytes of 500 rejected calls");
}

#[tokio::test]
async fn calls_that_lead_nowhere_or_have_no_time_write_next_to_nothing() {
    let system = System::new().await;
    let boundless = [("GAVEL_READS_PER_ADDRESS", "0")];
    let (service, api) = system.service_with(&boundless).await;
    let url = format!("http://{}/gavel.v1.ItemService/{}", service.address().await, "A".repeat(8_000));
    let client = reqwest::Client::new();
    let before = written(&service);
    let nowhere = async || client.post(&url).header("content-type", "application/json").body("{}").send().await;
    let answers = join_all((0..200).map(|_| nowhere())).await;
    assert!(answers.iter().all(|answer| answer.as_ref().is_ok_and(|answer| answer.status() == 404)));
    let short_lock_timeout = api.with_header("grpc-timeout", "1n");
    let unknown = "00000000-0000-4000-8000-000000000000";
    let (late, missing) = (join_all((0..200).map(|_| short_lock_timeout.item(unknown))), async {
        for _ in 0..50 {
            if let Ok(mut stream) = api.watch_item(unknown, 0).await {
                assert!(stream.next().await.is_none_or(|frame| frame.is_err()));
            }
        }
    });
    let (late, ()) = futures_util::join!(late, missing);
    assert!(late.iter().all(Result::is_err));
    let lines = written(&service) - before;
    assert!((1..8_000).contains(&lines), "{lines} bytes of 450 calls that came to nothing");
}

#[tokio::test]
async fn readiness_names_what_is_down_in_words_of_our_own() {
    let system = System::proxied().await;
    let (service, _) = system.service().await;
    let wires = [&system.database_wire, &system.broker_wire, &system.cache_wire];
    wires.into_iter().flatten().for_each(gavel_tests::proxy::Proxy::cut);
    let url = format!("http://{}/readyz", service.address().await);
    let look = || async { reqwest::get(&url).await.expect("answered").text().await.expect("text") };
    let all_down = |text: &String| text.matches("\"up\":false").count() + text.matches("\"up\": false").count() >= 3;
    let text = eventually("all three are down", look, all_down).await;
    let port = system.database_wire.as_ref().expect("asked for").address.port().to_string();
    for raw in ["os error", "127.0.0.1", port.as_str(), system.name(), "refused (", "IO error", "PgDatabaseError"] {
        assert!(!text.contains(raw), "{raw:?} is in {text}");
    }
    assert!(text.contains("RabbitMQ") && text.contains("database") && text.contains("cache"), "{text}");
}
