//! The command line in the hands of somebody who types it wrong, or who stands in a directory of somebody else's.
use chrono::{TimeDelta, Utc};
use futures_util::{StreamExt, stream};
use gavel_gateway::Kind;
use gavel_tests::{Api, Process, RunningGateway, System, eventually, gateway::free_port, process::binary};
use serde_json::Value;
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tokio::net::TcpListener;
use uuid::Uuid;

/// Nobody listens there.
const NOWHERE: &str = "http://127.0.0.1:9";
/// A run that takes longer goes on by itself: it is no panic.
const PATIENCE: Duration = Duration::from_secs(4);

const RUBBISH: [&str; 7] =
    ["", "\u{202e}\u{200b}", "99999999999999999s", "-1", "https://[::1", "9223372036854775808", "../../../etc/shadow"];

fn bidctl(arguments: &[String]) -> Command {
    let mut command = Command::new(binary("bidctl"));
    command.args(arguments).env_clear().current_dir(std::env::temp_dir());
    command
}

fn said(arguments: &[String]) -> String {
    let output = bidctl(arguments).output().expect("it runs");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Every command with its options, as the help has them.
fn commands(path: &[String]) -> Vec<(Vec<String>, Vec<String>)> {
    let help = said(&[path, &["--help".to_owned()]].concat());
    let section = |name: &str| {
        let lines = help.lines().skip_while(move |line| *line != name).skip(1);
        lines.take_while(|line| !line.is_empty() || name == "Options:").map(str::trim).collect::<Vec<_>>()
    };
    let subcommands: Vec<_> = section("Commands:").iter().filter_map(|line| line.split_whitespace().next()).collect();
    let options = section("Options:")
        .iter()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with("--")))
        .map(str::to_owned)
        .collect();
    let deeper = subcommands
        .into_iter()
        .filter(|name| *name != "help")
        .flat_map(|name| commands(&[path, &[name.to_owned()]].concat()));
    std::iter::once((path.to_vec(), options)).chain(deeper).collect()
}

/// None where it goes on and on.
async fn ends(arguments: Vec<String>) -> Option<(Vec<String>, Option<i32>, String)> {
    let mut process = Process::spawn(bidctl(&arguments));
    let ended = tokio::time::timeout(PATIENCE, process.ended()).await.ok();
    if ended.is_none() {
        process.kill();
    }
    let code = ended?.code();
    Some((arguments, code, process.output().join("\n")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_option_with_rubbish_makes_it_panic() {
    let all = commands(&[]);
    assert!(all.len() > 25, "the help lists its commands: {all:?}");
    let mut runs = Vec::new();
    for (path, options) in all {
        for option in
            options.into_iter().filter(|option| !matches!(&**option, "--help" | "--version" | "--watch" | "--dir"))
        {
            // Each option gets some of it in turn, and so each of it many options.
            for rubbish in RUBBISH.iter().cycle().skip(runs.len() % RUBBISH.len()).take(2) {
                let mut run = path.clone();
                if option != "--url" && option != "--ops-url" {
                    run.extend(["--url", NOWHERE, "--ops-url", NOWHERE].map(str::to_owned));
                }
                run.extend([option.clone(), (*rubbish).to_owned()]);
                runs.push(run);
            }
        }
        for rubbish in RUBBISH.iter().cycle().skip(runs.len() % RUBBISH.len()).take(2) {
            let mut run = path.clone();
            run.extend(
                ["--url", NOWHERE, "--ops-url", NOWHERE, "--token", "t", "--", rubbish, rubbish].map(str::to_owned),
            );
            runs.push(run);
        }
    }
    let ended: Vec<_> = stream::iter(runs).map(ends).buffer_unordered(4).collect().await;
    for (arguments, code, output) in ended.into_iter().flatten() {
        assert!(
            code.is_some_and(|code| code != 101) && !output.contains("panicked"),
            "{arguments:?}: {code:?} {output}"
        );
        assert!(
            !output.contains('\u{202e}') || output.contains("error:"),
            "{arguments:?} reaches the terminal: {output}"
        );
    }
}

async fn listed(system: &System) -> (Process, Api, String) {
    let (service, api) = system.service().await;
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    (service, api, item.item_id)
}

async fn json(arguments: &[&str]) -> Value {
    let mut process = Process::start(&binary("bidctl"), arguments, &[]);
    let ended = process.ended().await;
    let output = process.output().join("\n");
    assert!(ended.success(), "{arguments:?}: {output}");
    serde_json::from_str(&output).unwrap_or_else(|error| panic!("{error}: {output}"))
}

#[tokio::test]
async fn through_the_gateway_it_trusts_whom_it_is_told_to() {
    let system = System::new().await;
    let (service, _api, item) = listed(&system).await;
    let gateway = RunningGateway::open(Kind::Nginx, &[&service]).await;
    let (certificate, token) = (gateway.certificate.display().to_string(), system.token("alice", "bidder"));
    let by = |more: &[&str]| {
        let all = [&["--json", "--url", &gateway.url, "--token", &token], more].concat();
        all.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let trusting: Vec<_> = by(&["--cacert", &certificate, "bid", &item, "1500"]);
    let bid = json(&trusting.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!((&bid["outcome"], &bid["currency"]), (&"BID_OUTCOME_LEADING".into(), &"EUR".into()), "{bid}");
    let distrusting = said(&by(&["item", "list"]));
    assert!(distrusting.contains("does not answer") && !distrusting.contains("panicked"), "{distrusting}");
    let missing = said(&by(&["--cacert", "/nonexistent.pem", "item", "list"]));
    assert!(missing.contains("/nonexistent.pem"), "{missing}");
}

#[tokio::test]
async fn a_planted_file_of_settings_gets_no_token() {
    let trap = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let dir = std::env::temp_dir().join(format!("gavel-planted-{}", Uuid::new_v4().simple()));
    let below = dir.join("below");
    fs::create_dir_all(dir.join(".gavel")).and_then(|()| fs::create_dir_all(&below)).expect("directories");
    let file = dir.join(".gavel/dev.env");
    let url = format!("http://{}", trap.local_addr().expect("bound"));
    fs::write(&file, format!("GAVEL_URL={url}\nGAVEL_OPS_URL={url}\n")).expect("written");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("mode");
    for command in [["item", "list"], ["queue", "list"]] {
        let output = bidctl(&command.map(str::to_owned)).env("GAVEL_TOKEN", "secret").current_dir(&below).output();
        assert!(!output.expect("it runs").status.success(), "nobody listens where it asks by default");
    }
    assert!(tokio::time::timeout(Duration::from_millis(200), trap.accept()).await.is_err(), "nobody came");

    // In the checkout of the program itself the file counts, where it is its owner's alone; and takes no other secret.
    let own = dir.join("target/debug");
    fs::create_dir_all(&own).expect("a directory");
    let program = own.join("bidctl");
    fs::copy(binary("bidctl"), &program).expect("copied");
    let run = |token: Option<&str>| {
        let mut command = Command::new(&program);
        // What needs no token is asked without one.
        command.args(["stats"]).env_clear().current_dir(&below).stdin(Stdio::null());
        if let Some(token) = token {
            command.env("GAVEL_TOKEN", token);
        }
        let output = command.output().expect("it runs");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(run(Some("secret")).contains("is not sent to an address"), "{}", run(Some("secret")));
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("mode");
    assert!(run(None).contains("allowed: 600"), "{}", run(None));
    let _ = fs::remove_dir_all(Path::new(&dir));
}

#[tokio::test]
async fn a_bid_that_is_repeated_says_so_and_waits_for_nothing() {
    let system = System::new().await;
    let (service, _api, item) = listed(&system).await;
    let _worker = system.worker().await;
    let (url, token) = (format!("http://{}", service.address().await), system.token("alice", "bidder"));
    let key = Uuid::new_v4().to_string();
    let bid = ["--url", &url, "--token", &token, "--json", "bid", "--wait", "--key", &key, &item, "1500"];
    let first = json(&bid).await;
    assert_eq!(first["replayed"], false, "{first}");
    assert!(first["statistics_after_ms"].is_u64(), "{first}");
    let began = Instant::now();
    let again = json(&bid).await;
    assert_eq!((&again["replayed"], &again["bid_id"]), (&true.into(), &first["bid_id"]), "{again}");
    assert!(began.elapsed() < Duration::from_secs(8) && again["statistics_after_ms"].is_null(), "{again}");
}

#[tokio::test]
async fn scripts_get_one_shape() {
    let system = System::new().await;
    let (service, api, item) = listed(&system).await;
    let _worker = system.worker().await;
    let (url, token) = (format!("http://{}", service.address().await), system.token("alice", "bidder"));
    let ask = async |more: &[&str]| json(&[&["--json", "--url", &url, "--token", &token], more].concat()).await;
    let alice = api.with_token(token.clone());
    for amount in [1_000, 2_000, 3_000] {
        alice.bid(&item, amount).await.expect("accepted");
    }
    let items = ask(&["item", "list", "--status", "open"]).await;
    assert_eq!((&items["items"][0]["status"], &items["more"]), (&"ITEM_STATUS_OPEN".into(), &false.into()), "{items}");
    let bids = ask(&["item", "bids", &item, "--limit", "2"]).await;
    assert_eq!(bids["bids"].as_array().map(Vec::len), Some(2), "{bids}");
    assert_eq!((&bids["more"], &bids["currency"]), (&true.into(), &"EUR".into()), "{bids}");
    let shown = ask(&["item", "show", &item, "--at-least-version", "4"]).await;
    assert_eq!((&shown["price_minor"], &shown["closed_at"]), (&3_000.into(), &Value::Null), "{shown}");

    let start = |more: &[&str]| {
        Process::start(&binary("bidctl"), &[&["--json", "--url", &url, "--token", &token], more].concat(), &[])
    };
    let documents = async |process: &Process| -> Vec<Value> {
        process.output().iter().map(|line| serde_json::from_str(line).expect("a document on each line")).collect()
    };
    // Who is outbid before events come sees that in their standings, and gets no notice.
    api.hears_events(&item).await;
    let (item_watch, user_watch) = (start(&["item", "watch", &item]), start(&["user", "watch"]));
    let has = |key: &'static str| move |seen: &Vec<Value>| seen.iter().any(|document| !document[key].is_null());
    eventually("the item is shown", || documents(&item_watch), has("item")).await;
    eventually("the standings are shown", || documents(&user_watch), has("standings")).await;
    let bob = api.with_token(system.token("bob", "bidder"));
    bob.bid(&item, 4_000).await.expect("accepted");
    let seen = eventually("the notice comes", || documents(&user_watch), has("notice")).await;
    let notice = seen.iter().find(|document| !document["notice"].is_null()).expect("found");
    assert_eq!(notice["notice"]["kind"], "NOTICE_KIND_OUTBID", "{notice}");
    let at = |version: i64| move |seen: &Vec<Value>| seen.iter().any(|document| document["item"]["version"] == version);
    eventually("the update is shown", || documents(&item_watch), at(5)).await;
}

#[tokio::test]
async fn who_watches_an_item_goes_on_when_another_service_takes_over() {
    let system = System::new().await;
    let address = format!("127.0.0.1:{}", free_port().await);
    let variables = [("GAVEL_LISTEN", address.as_str())];
    let (mut first, api) = system.service_with(&variables).await;
    let _worker = system.worker().await;
    let ends_at = Utc::now() + TimeDelta::hours(1);
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", ends_at).await.item_id;
    let url = format!("http://{address}");
    let watch = Process::start(&binary("bidctl"), &["--url", &url, "item", "watch", &item], &[]);
    let shows = |what: &'static str| {
        let watch = &watch;
        move || async move { watch.output().iter().any(|line| line.contains(what)) }
    };
    eventually("the item is shown", shows("version 1"), |shown| *shown).await;
    first.terminate();
    assert!(first.ended().await.success());
    let (_second, api) = system.service_with(&variables).await;
    api.with_token(system.token("alice", "bidder")).bid(&item, 1_000).await.expect("accepted");
    eventually("the bid is shown", shows("version 2"), |shown| *shown).await;
    assert!(!watch.has_ended());
}

#[test]
fn one_program_is_what_it_is_called() {
    let said = |program: &Path| {
        let output = Command::new(program).arg("--version").output().expect("it runs");
        (
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    for name in ["bid-service", "bid-worker", "bidctl"] {
        let (ran, version) = said(&binary(name));
        assert!(ran && version.starts_with(&format!("{name} ")), "{version}");
    }
    let (ran, why) = said(&binary("gavel"));
    assert!(!ran && why.contains("called as bid-service, bid-worker or bidctl"), "{why}");
}
