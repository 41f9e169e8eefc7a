//! An alert that somebody can act on.
use super::{MOST_OPEN, sam_has_open};
use chrono::{TimeDelta, Utc};
use gavel_tests::{System, private::Prometheus};
use serde_yaml_ng::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

fn ops() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops")
}

/// The alert that looks at refused publications, wherever it stands.
fn alert() -> Option<Value> {
    let text = fs::read_to_string(ops().join("observability/alerts.yml")).expect("the alerts");
    let alerts: Value = serde_yaml_ng::from_str(&text).expect("YAML");
    let rules = alerts["groups"].as_sequence()?.iter().filter_map(|group| group["rules"].as_sequence()).flatten();
    let asks = |rule: &&Value, what: &str| rule["expr"].as_str().is_some_and(|expr| expr.contains(what));
    rules.into_iter().find(|rule| asks(rule, "create_item") && asks(rule, "refused")).cloned()
}

#[tokio::test]
#[ignore = "waits for the exercise of milestone 6"]
async fn somebody_is_told_of_sellers_who_are_refused_and_what_to_do() {
    let alert = alert().expect("an alert of ops/observability/alerts.yml asks for create_item that was refused");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (name, runbook) = (text(&alert["alert"]), text(&alert["annotations"]["runbook"]));
    assert_eq!(text(&alert["labels"]["severity"]), "ticket", "it can wait for the morning");
    let runbook = runbook.strip_prefix("ops/").map(|file| ops().join(file)).filter(|file| file.exists());
    let runbook = fs::read_to_string(runbook.expect("its runbook is there")).expect("text");
    for part in ["## First look", "```sh\n", "## What to do", "## Stop, and call somebody"] {
        assert!(runbook.contains(part), "its runbook has {part:?}");
    }
    let tests = fs::read_to_string(ops().join("observability/rules.test.yml")).expect("the rules' tests");
    assert!(tests.contains(&format!("alertname: {name}")), "rules.test.yml tries {name}");

    let system = System::new().await;
    let (service, api) = system.service().await;
    let jobs = [("gavel-service", vec![service.ops_address().await.clone()])];
    let (prometheus, seller) = (Prometheus::start(&jobs).await, api.with_token(system.token("sam", "seller")));
    let told = format!("ALERTS{{alertname=\"{name}\"}}");
    sam_has_open(&system, MOST_OPEN - 1).await;
    seller.try_create("The last lamp", Utc::now() + TimeDelta::hours(1)).await.expect("one was left");
    assert!(prometheus.series(&told).await.is_empty(), "nobody was refused yet");
    let until = Instant::now() + Duration::from_secs(40);
    while prometheus.series(&told).await.is_empty() {
        assert!(Instant::now() < until, "{name} is pending or fires while publications are refused");
        seller.try_create("A lamp too many", Utc::now() + TimeDelta::hours(1)).await.expect_err("refused");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
