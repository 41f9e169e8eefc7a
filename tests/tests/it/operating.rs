//! What an operator does with `bidctl`: look, pause, cancel, retry, discard, watch.
use chrono::{TimeDelta, Utc};
use gavel_tests::{Process, System, eventually, process::binary};
use serde_json::Value;

struct Operator {
    system: System,
    url: String,
    _service: Process,
}

impl Operator {
    async fn new() -> Self {
        let system = System::new().await;
        let (service, api) = system.service().await;
        api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
        let url = format!("http://{}", service.ops_address().await);
        Self { system, url, _service: service }
    }

    fn start(&self, arguments: &[&str]) -> Process {
        let token = self.system.token("olga", "ops");
        let mut all = arguments.to_vec();
        all.extend(["--ops-url", &self.url, "--token", &token]);
        Process::start(&binary("bidctl"), &all, &[])
    }

    async fn said(&self, arguments: &[&str]) -> String {
        let mut bidctl = self.start(arguments);
        let ended = bidctl.ended().await;
        let output = bidctl.output().join("\n");
        assert!(ended.success(), "bidctl {arguments:?}: {output}");
        output
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let mut all = arguments.to_vec();
        all.push("--json");
        serde_json::from_str(&self.said(&all).await).expect("JSON")
    }

    async fn refused(&self, arguments: &[&str]) -> String {
        let mut bidctl = self.start(arguments);
        assert!(!bidctl.ended().await.success(), "bidctl {arguments:?} was meant to fail");
        bidctl.output().join("\n")
    }

    async fn queue(&self, kind: &str) -> Value {
        let listed = self.json(&["queue", "list"]).await;
        let found = listed["queues"].as_array().expect("an array").iter().find(|queue| queue["kind"] == kind).cloned();
        found.unwrap_or_else(|| panic!("no queue {kind} in {listed}"))
    }
}

#[tokio::test]
async fn queues_are_listed_paused_and_resumed() {
    let operator = Operator::new().await;
    let queue = operator.queue("close_item").await;
    assert_eq!((&queue["scheduled"], &queue["waiting"]), (&1.into(), &0.into()), "{queue}");
    assert_eq!(queue["paused_at"], Value::Null);
    let stranger = "INSERT INTO mq_msgs (id, channel_name, channel_args, after_message_id)
                    VALUES (uuid_generate_v4(), 'of_a_later_version', '', NULL)";
    sqlx::query(stranger).execute(&operator.system.db).await.expect("enqueued");
    let unknown = operator.queue("of_a_later_version").await;
    assert_eq!((&unknown["registered"], &unknown["waiting"]), (&false.into(), &1.into()), "{unknown}");

    assert_eq!(operator.json(&["queue", "pause", "close_item"]).await["changed"], true);
    let again = operator.refused(&["queue", "pause", "close_item"]).await;
    assert!(again.contains("was paused already"), "{again}");
    let unknown = operator.refused(&["queue", "pause", "close_itm"]).await;
    assert!(unknown.contains("perhaps close_item?"), "{unknown}");
    for wrong in [
        &["queue", "pause", "CLOSE_ITEM"][..],
        &["dead", "list", "--kind", "clos_item"],
        &["dead", "retry", "--kind", "clos_item"],
    ] {
        let said = operator.refused(wrong).await;
        assert!(said.contains("perhaps close_item?"), "{wrong:?}: {said}");
    }
    let consumer = operator.refused(&["parked", "list", "--handler", "project_itm"]).await;
    assert!(consumer.contains("perhaps project_item?"), "{consumer}");
    assert_eq!(operator.queue("close_item").await["paused_by"], "olga");
    let table = operator.said(&["queue", "list"]).await;
    assert!(table.contains("kind") && table.contains("paused by olga") && table.contains("unknown kind"), "{table}");
    assert_eq!(operator.json(&["queue", "resume", "close_item"]).await["changed"], true);
    assert_eq!(operator.queue("close_item").await["paused_at"], Value::Null);
    let again = operator.refused(&["queue", "resume", "close_item"]).await;
    assert!(again.contains("was not paused"), "{again}");
    let refused = operator.refused(&["queue", "show", "nothing"]).await;
    assert!(refused.contains("\"nothing\"") && refused.contains("close_item"), "{refused}");
}

#[tokio::test]
async fn a_job_is_looked_at_cancelled_retried_and_discarded() {
    let operator = Operator::new().await;
    let shown = operator.json(&["queue", "show", "close_item"]).await;
    let id = shown["jobs"][0]["job_id"].as_str().expect("one is queued").to_owned();
    assert_eq!(shown["jobs"][0]["state"], "JOB_STATE_SCHEDULED");
    let job = operator.json(&["queue", "job", &id]).await;
    assert!(job["args"]["item_id"].is_string(), "{job}");

    let refused = operator.refused(&["queue", "cancel", &id]).await;
    assert!(refused.contains("its auction stays") && refused.contains("--yes"), "it says what follows: {refused}");
    assert_eq!(operator.json(&["queue", "cancel", &id, "--yes"]).await["buried"], true);
    let dead = operator.json(&["dead", "list", "--kind", "close_item"]).await;
    assert_eq!(dead["jobs"][0]["job_id"], *id);
    assert_eq!(dead["jobs"][0]["last_error"], "cancelled by olga");
    let table = operator.said(&["dead", "show", &id]).await;
    assert!(table.contains("cancelled by olga") && table.contains("item_id"), "{table}");

    let again = operator.refused(&["queue", "cancel", &id, "--yes"]).await;
    assert!(again.contains("is dead already"), "{again}");
    let nobody = uuid::Uuid::nil().to_string();
    let partly = operator.refused(&["dead", "retry", &nobody]).await;
    assert!(partly.contains("not there") && partly.contains(&nobody) && !partly.contains("queued again"), "{partly}");
    let none = operator.refused(&["dead", "retry", "--kind", "start_item"]).await;
    assert!(none.contains("there is none"), "{none}");
    let none = operator.refused(&["parked", "discard", &nobody, "--yes"]).await;
    assert!(none.contains("not there"), "{none}");
    let refused = operator.refused(&["dead", "discard", &id]).await;
    assert!(refused.contains("its auction stays") && refused.contains("--yes"), "{refused}");
    assert_eq!(operator.json(&["dead", "retry", "--kind", "close_item"]).await["count"], 1);
    assert_eq!(operator.json(&["queue", "job", &id]).await["state"], "JOB_STATE_WAITING");
    assert_eq!(operator.json(&["queue", "cancel", &id, "--yes"]).await["buried"], true);
    assert_eq!(operator.json(&["dead", "discard", &id, "--yes"]).await["count"], 1);
    assert_eq!(operator.json(&["dead", "list"]).await["jobs"], serde_json::json!([]));
    let gone = operator.refused(&["queue", "job", &id]).await;
    assert!(gone.contains("there is no job"), "{gone}");
    let neither = operator.refused(&["dead", "retry"]).await;
    assert!(neither.contains("--kind") || neither.contains("JOB_ID"), "{neither}");
}

#[tokio::test]
async fn handlers_are_listed_and_a_list_can_be_watched() {
    let operator = Operator::new().await;
    let handlers = operator.json(&["handlers"]).await;
    let closing =
        handlers["handlers"].as_array().expect("an array").iter().find(|h| h["name"] == "close_item").cloned();
    assert_eq!(closing.expect("it is listed")["trigger"], "job");
    let mut watching = operator.start(&["queue", "list", "--watch", "--every", "1", "--json"]);
    let lines = eventually("it is shown again", || async { watching.output() }, |lines| lines.len() >= 2).await;
    for line in lines {
        let turn: Value = serde_json::from_str(&line).expect("a JSON document on each line");
        assert!(turn["queues"].is_array(), "{turn}");
    }
    watching.kill();
    let stranger = operator.system.token("eve", "bidder");
    let arguments = ["queue", "list", "--watch", "--every", "1", "--ops-url", &operator.url, "--token", &stranger];
    let mut denied = Process::start(&binary("bidctl"), &arguments, &[]);
    assert!(!denied.ended().await.success(), "what is not allowed is not asked for again and again");
    let table = operator.said(&["parked", "list"]).await;
    assert!(table.contains("(none)"), "{table}");
}

#[tokio::test]
async fn what_operators_do_is_written_down_with_who_and_why() {
    let operator = Operator::new().await;
    operator.said(&["queue", "pause", "close_item", "--reason", "the disk is full"]).await;
    operator.said(&["queue", "resume", "close_item"]).await;
    let jobs = operator.json(&["queue", "show", "close_item"]).await;
    let job = jobs["jobs"][0]["job_id"].as_str().expect("a job").to_owned();
    operator.said(&["queue", "cancel", &job, "--yes", "--reason", "a test"]).await;
    operator.said(&["dead", "retry", &job, "--reason", "it was one"]).await;
    operator.refused(&["queue", "pause", "close_item", "--reason", ""]).await;
    let read = "SELECT operator_id, action, target, reason FROM operator_actions
                WHERE operator_id = 'olga' ORDER BY action_id";
    let found: Vec<(String, String, String, String)> =
        sqlx::query_as(read).fetch_all(&operator.system.db).await.expect("read");
    let found: Vec<_> = found.iter().map(|(by, action, target, why)| (&**by, &**action, &**target, &**why)).collect();
    let ids = format!(r#"{{"Ids":["{job}"]}}"#);
    let wanted = [
        ("olga", "pause_queue", "close_item", "the disk is full"),
        ("olga", "resume_queue", "close_item", "none was given"),
        ("olga", "cancel_job", job.as_str(), "a test"),
        ("olga", "retry_dead_jobs", ids.as_str(), "it was one"),
    ];
    assert_eq!(found, wanted);
}

#[tokio::test]
async fn the_top_shows_what_is_going_on_and_the_health_check_that_a_process_lives() {
    let system = System::new().await;
    let (service, api) = system.service().await;
    let worker = system.worker().await;
    let addresses = [service.ops_address().await.clone(), worker.ops_address().await.clone()];
    let urls = addresses.map(|address| format!("http://{address}"));
    let run = async |arguments: &[&str]| {
        let mut process = Process::start(&binary("bidctl"), arguments, &[]);
        let is_well = process.ended().await.success();
        (is_well, process.output().join("\n"))
    };
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    let bidder = api.with_token(system.token("alice", "bidder"));
    let bidding = async {
        for amount in (1_000..).step_by(1_000) {
            bidder.bid(&item.item_id, amount).await.expect("accepted");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let arguments = ["--json", "top", &urls[0], &urls[1], "--once", "--every", "1"];
    let looked = async {
        let seen = || async { serde_json::from_str::<Value>(&run(&arguments).await.1).unwrap_or_default() };
        let is_whole = |seen: &Value| {
            let applied =
                seen["consumers"].as_array().is_some_and(|all| all.iter().any(|one| one["age_p99_ms"].is_f64()));
            seen["bids"]["per_second"].as_f64() > Some(1.0) && seen["bids"]["p99_ms"].is_f64() && applied
        };
        eventually("bids and their events are seen", seen, is_whole).await
    };
    let seen = tokio::select! {
        () = bidding => unreachable!("it goes on and on"),
        seen = looked => seen,
    };
    assert!(seen["queues"].as_array().is_some_and(|all| all.iter().any(|one| one["kind"] == "close_item")), "{seen}");
    assert_eq!(seen["down"], serde_json::json!([]), "{seen}");
    let (is_well, shown) = run(&["top", &urls[0], "--once", "--every", "1"]).await;
    assert!(is_well && shown.contains("close_item") && shown.contains("bids"), "{shown}");

    assert!(run(&["healthcheck", "--ops-url", &urls[1]]).await.0, "the worker lives");
    drop(worker);
    assert!(!run(&["healthcheck", "--ops-url", &urls[1]]).await.0, "it does not");
    let (is_well, shown) = run(&arguments).await;
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert!(is_well && shown["bids"]["per_second"].is_f64(), "the service is seen all the same: {shown}");
    assert!(shown["silent"][0].as_str().is_some_and(|said| said.contains(&urls[1])), "{shown}");
}
