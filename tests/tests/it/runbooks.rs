//! Commands of the runbooks, run as they stand there on a system that works, by somebody with an operator's accounts.
use chrono::{TimeDelta, Utc};
use gavel_accounts::postgres::Role;
use gavel_tests::{System, eventually, process::binary};
use std::{
    collections::BTreeMap,
    env, fs,
    path::Path,
    process::{Command, Output},
};

/// Each runbook's commands.
fn commands() -> BTreeMap<String, Vec<String>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/runbooks");
    let books = fs::read_dir(dir).expect("the directory").map(|entry| entry.expect("an entry").path());
    let of = |text: &str| -> Vec<String> {
        let blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
        blocks.flat_map(str::lines).map(str::to_owned).collect()
    };
    let read = |path: &Path| of(&fs::read_to_string(path).expect("text"));
    books.map(|path| (path.file_name().expect("a name").to_string_lossy().into_owned(), read(&path))).collect()
}

#[tokio::test]
async fn each_command_of_each_runbook_does_what_it_says() {
    let system = System::new().await;
    let (service, api) = system.service().await;
    let _worker = system.worker().await;
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    api.with_token(system.token("alice", "bidder")).bid(&item.item_id, 1_000).await.expect("accepted");
    let path = env::join_paths(
        [binary("bidctl").parent().expect("a directory").to_owned()]
            .into_iter()
            .chain(env::split_paths(&env::var_os("PATH").expect("a path"))),
    );
    let mut variables = system.variables(&[
        ("DATABASE_URL", system.database_url(Role::Operator)),
        ("GAVEL_URL", &format!("http://{}", service.address().await)),
        ("GAVEL_OPS_URL", &format!("http://{}", service.ops_address().await)),
        ("GAVEL_TOKEN", &system.token("olga", "ops")),
    ]);
    variables.push(("PATH".to_owned(), path.expect("a path").into_string().expect("text")));
    let run = |command: &str| -> Output {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).env_clear().envs(variables.iter().cloned()).output().expect("a shell")
    };
    // A worker that has only just started has not declared its queues yet, and the doctor says so.
    let is_well = || async { run("bidctl doctor").status.success() };
    eventually("the doctor finds nothing", is_well, |well| *well).await;
    let books = commands();
    assert!(books.len() > 15, "{:?}", books.keys());
    for (book, commands) in books {
        assert!(book == "README.md" || !commands.is_empty(), "{book} shows no command");
        for command in commands {
            let Output { status, stdout, stderr } = run(&command);
            let said = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
            assert!(status.success(), "{book}: {command}: {said}");
        }
    }
}
