//! Objectives, alerts and the dashboard: their rules hold, they ask for what processes really say, and each alert leads
//! somewhere.
use chrono::{TimeDelta, Utc};
use gavel_tests::{Process, System, eventually, private::Prometheus, process::binary};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn observability() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/observability")
}

fn read(file: &str) -> String {
    fs::read_to_string(observability().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The rules' own tests, by what they watch over.
const TESTS: [&str; 3] = ["rules.objectives.test.yml", "rules.test.yml", "rules.machines.test.yml"];

/// All that alerts are expected to say in those tests: of each alert, the times at which it is looked at.
fn expected() -> BTreeMap<String, Vec<Value>> {
    let mut expected = BTreeMap::<_, Vec<_>>::new();
    for file in TESTS {
        let all: Value = serde_yaml_ng::from_str(&read(file)).expect("YAML");
        let tests = all["tests"].as_array().expect("tests").iter();
        for looked_at in tests.filter_map(|test| test["alert_rule_test"].as_array()).flatten() {
            let name = looked_at["alertname"].as_str().expect("a name").to_owned();
            expected.entry(name).or_default().push(looked_at["exp_alerts"].clone());
        }
    }
    expected
}

#[test]
fn each_alert_is_tried_where_it_fires_and_where_it_does_not() {
    let (alerts, expected) = (read("alerts.yml"), expected());
    let names = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    for name in names {
        let tried = expected.get(name).unwrap_or_else(|| panic!("nobody tries {name}"));
        let fires = |alerts: &Value| alerts.as_array().is_some_and(|alerts| !alerts.is_empty());
        assert!(tried.iter().any(fires), "{name} fires in no test");
        assert!(tried.iter().any(|alerts| !fires(alerts)), "{name} fires in each of its tests");
    }
}

#[test]
fn each_rule_fires_when_it_must_and_a_throttled_caller_wakes_nobody() {
    let all: [(&str, &[&str]); 4] = [
        ("promtool", &["check", "rules", "objectives.yml", "alerts.yml"]),
        ("promtool", &[&["test", "rules"][..], &TESTS].concat()),
        ("promtool", &["check", "config", "prometheus.yml"]),
        ("amtool", &["check-config", "alertmanager.yml"]),
    ];
    for (program, arguments) in all {
        let checked = Command::new(program).args(arguments).current_dir(observability()).output();
        let checked = checked.unwrap_or_else(|error| panic!("{program}: {error}"));
        let said = || String::from_utf8_lossy(&[checked.stdout.clone(), checked.stderr.clone()].concat()).into_owned();
        assert!(checked.status.success(), "{program} {arguments:?}: {}", said());
    }
}

#[test]
fn each_alert_leads_to_a_runbook_and_each_runbook_is_led_to() {
    let alerts = read("alerts.yml");
    let led: BTreeSet<_> =
        alerts.lines().filter_map(|line| line.trim().strip_prefix("runbook: ops/runbooks/")).collect();
    let ends = alerts.lines().filter(|line| line.trim_start().starts_with("- alert:")).count();
    assert_eq!(alerts.matches("runbook: ").count(), ends, "one each");
    let there = fs::read_dir(observability().join("../runbooks")).expect("the directory");
    let there: BTreeSet<_> =
        there.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect();
    let there: BTreeSet<_> = there.iter().map(String::as_str).filter(|name| *name != "README.md").collect();
    assert_eq!(led, there);
}

#[test]
fn the_dashboard_is_what_its_table_says() {
    let checked = Command::new(binary("xtask")).args(["dashboard", "--check"]).output().expect("it runs");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

/// Everything that the dashboard draws: its title and its query.
fn drawn() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read("dashboard.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let targets = |panel: &Value| panel["targets"].as_array().cloned().unwrap_or_default();
    panels
        .iter()
        .flat_map(|panel| targets(panel).into_iter().map(|one| (text(&panel["title"]), text(&one["expr"]))))
        .collect()
}

/// Names of metrics in a text.
fn metrics(text: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = text.split(|c: char| !is_word(c)).filter(|word| !word.contains(':'));
    let ours = words.filter(|word| word.starts_with("gavel_") || word.starts_with("process_"));
    ours.map(str::to_owned).collect()
}

#[tokio::test]
async fn every_panel_and_every_alert_asks_for_what_processes_say_under_load() {
    let system = System::new().await;
    let (service, api) = system.service().await;
    let worker = system.worker().await;
    let jobs = [
        ("gavel-service", vec![service.ops_address().await.clone()]),
        ("gavel-worker", vec![worker.ops_address().await.clone()]),
    ];
    let prometheus = Prometheus::start(&jobs).await;
    let seller = api.with_token(system.token("sam", "seller"));
    let bidder = api.with_token(system.token("alice", "bidder"));
    let mut amount = 1_000;
    let mut unanswered = drawn();
    let until = std::time::Instant::now() + std::time::Duration::from_mins(1);
    while !unanswered.is_empty() && std::time::Instant::now() < until {
        let item = seller.create("A lamp", Utc::now() + TimeDelta::seconds(2)).await;
        let _watched = api.watch_item(&item.item_id, 0).await;
        bidder.bid(&item.item_id, amount).await.expect("accepted");
        bidder.bid(&item.item_id, 1).await.expect_err("too low");
        let _ = api.item(&item.item_id).await;
        amount += 100;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let mut left = Vec::new();
        for (title, query) in unanswered {
            let found = prometheus.series(&query).await;
            if !found.iter().any(|series| series["value"][1].as_str().is_some_and(|value| value != "NaN")) {
                left.push((title, query));
            }
        }
        unanswered = left;
    }
    assert!(unanswered.is_empty(), "panels without anything to draw: {unanswered:#?}");

    // Labels that an alert asks for, such as a kind, are its own tests' business.
    let said = service.metrics().await + &worker.metrics().await;
    let asked = metrics(&(read("alerts.yml") + &read("objectives.yml")));
    // What is there once something has gone wrong, or where there are keys to be read from somewhere, or a standby.
    let later = ["gavel_handler_rejected_total", "gavel_token_keys_age_seconds", "gavel_standby_in_use"];
    for name in asked.iter().filter(|name| !later.contains(&name.as_str())) {
        assert!(said.contains(name.as_str()), "no process says {name}");
    }
}

#[tokio::test]
async fn what_is_late_and_what_is_held_is_measured() {
    let system = System::new().await;
    let (service, api) = system.service().await;
    let worker = system.worker().await;
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::seconds(1)).await;
    api.with_token(system.token("alice", "bidder")).bid(&item.item_id, 1_500).await.expect("accepted");
    let counted = |text: &str, name: &str, label: &str| {
        let line = text.lines().find(|line| line.starts_with(name) && line.contains(label));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or_default()
    };
    let closed = || async {
        let text = worker.metrics().await;
        [
            counted(&text, "gavel_job_lateness_seconds_count", "close_item"),
            counted(&text, "gavel_event_age_seconds_count", "project_item"),
            counted(&text, "gavel_event_age_seconds_count", "apply_user_stats"),
        ]
    };
    // Of the item: its beginning, the bid and its end; statistics hear of the last two.
    let all = |found: &[f64; 3]| found[0] >= 1.0 && found[1] >= 3.0 && found[2] >= 2.0;
    eventually("each is counted by itself", closed, all).await;
    let text = service.metrics().await;
    assert!(counted(&text, "gavel_pool_size", "calls") >= 1.0, "{text}");
    assert!(counted(&text, "gavel_connections", "") >= 1.0, "the test's own connection");
    assert!(text.contains("gavel_build_info{") && text.contains("revision="), "{text}");
    let late = counted(&worker.metrics().await, "gavel_job_lateness_seconds_sum", "close_item");
    assert!((0.0..60.0).contains(&late), "{late}");
    drop::<Process>(worker);
}
