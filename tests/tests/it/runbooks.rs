//! Commands of the runbooks, run as they stand there on a system that works, by somebody with an operator's accounts;
//! and what the runbooks say that they print then.
use chrono::{TimeDelta, Utc};
use gavel_accounts::postgres::Role;
use gavel_tests::{Process, System, eventually, process::binary};
use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
    process::{Command, Output},
};

/// A directory that gets what each command printed, for whoever writes a runbook.
const WRITE_TO: &str = "GAVEL_TEST_RUNBOOKS_TO";

/// A command of a runbook, and lines of what it prints where all is well.
struct Shown {
    command: String,
    lines: Vec<String>,
}

/// Each runbook's text, by its name.
fn books() -> BTreeMap<String, String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/runbooks");
    let books = fs::read_dir(dir).expect("the directory").map(|entry| entry.expect("an entry"));
    let read = |book: fs::DirEntry| fs::read_to_string(book.path()).expect("text");
    books.map(|book| (book.file_name().into_string().expect("a name"), read(book))).collect()
}

/// Each runbook's commands. A block of text after a block of commands has what they print, apart by empty lines and with
/// "…" for what is left out.
fn commands() -> BTreeMap<String, Vec<Shown>> {
    books().into_iter().map(|(book, text)| (book, shown_in(&text))).collect()
}

fn shown_in(text: &str) -> Vec<Shown> {
    let mut all = Vec::new();
    for block in text.split("```sh\n").skip(1) {
        let (commands, rest) = block.split_once("```\n").expect("a block ends");
        let printed = rest.trim_start().strip_prefix("```text\n").and_then(|rest| rest.split("```").next());
        let mut printed = printed.unwrap_or_default().split("\n\n");
        for command in commands.lines() {
            let lines = printed.next().unwrap_or_default().lines().filter(|line| line.trim() != "…");
            all.push(Shown { command: command.to_owned(), lines: lines.map(str::to_owned).collect() });
        }
        assert_eq!(printed.next(), None, "more is printed than there are commands: {commands}");
    }
    all
}

/// A line without what is different each time: numbers and ids, and how wide they make a table.
fn shape(line: &str) -> String {
    let words = line.split_whitespace().map(|word| {
        let is_id = word.len() >= 32 && word.chars().filter(|c| *c == '-').count() == 4;
        let parts = word.split(|c: char| c.is_ascii_digit()).filter(|part| !["", ".", ":", "-"].contains(part));
        if is_id { "ID".to_owned() } else { parts.collect::<Vec<_>>().join("#") }
    });
    words.collect::<Vec<_>>().join(" ").replace(['-', '─'], "")
}

/// What they tell an operator to do to something that is there only on a bad day: `bidctl` with words that stand for
/// others.
fn remedies() -> BTreeSet<(String, String)> {
    let told = |(book, text): (String, String)| {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let inline =
            text.split('`').skip(1).step_by(2).filter(|code| code.starts_with("bidctl ") && !code.contains("--help"));
        inline.map(|code| (book.clone(), code.to_owned())).collect::<Vec<_>>()
    };
    books().into_iter().flat_map(told).collect()
}

/// With something in the place of each word that stands for it.
fn filled(remedy: &str) -> String {
    let stands_for = |word: &str| match word {
        "ID" => "00000000-0000-4000-8000-000000000000".to_owned(),
        "KIND" => "close_item".to_owned(),
        "HANDLER" => "project_item".to_owned(),
        "N" => "27".to_owned(),
        "…" => "'a test'".to_owned(),
        word => word.to_owned(),
    };
    remedy.split(' ').map(stands_for).collect::<Vec<_>>().join(" ")
}

/// What runs commands as an operator does, on a system that works.
struct Desk {
    // Until it is dropped.
    _system: System,
    variables: Vec<(String, String)>,
    _processes: (Process, Process),
}

impl Desk {
    async fn new() -> Self {
        let system = System::new().await;
        let (service, api) = system.service().await;
        let worker = system.worker().await;
        let seller = api.with_token(system.token("sam", "seller"));
        let item = seller.create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
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
        let desk = Self { _system: system, variables, _processes: (service, worker) };
        // A worker that has only just started has not declared its queues yet, and the doctor says so.
        let is_well = || async { desk.run("bidctl doctor").status.success() };
        eventually("the doctor finds nothing", is_well, |well| *well).await;
        desk
    }

    fn run(&self, command: &str) -> Output {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).env_clear().envs(self.variables.iter().cloned()).output().expect("a shell")
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

#[tokio::test]
async fn each_remedy_is_a_command_that_there_is() {
    let desk = Desk::new().await;
    let remedies = remedies();
    assert!(remedies.len() > 10, "{remedies:?}");
    for (book, remedy) in remedies {
        let output = desk.run(&filled(&remedy));
        // There need not be such a job; there must be such a command.
        assert!(matches!(output.status.code(), Some(0 | 1)), "{book}: {remedy}: {}", said(&output));
    }
}

#[tokio::test]
async fn each_command_of_each_runbook_does_what_it_says() {
    let desk = Desk::new().await;
    let books = commands();
    assert!(books.len() > 15, "{:?}", books.keys());
    for (book, commands) in books {
        assert!(book == "README.md" || !commands.is_empty(), "{book} shows no command");
        for Shown { command, lines } in commands {
            let output = desk.run(&command);
            let said = said(&output);
            assert!(output.status.success(), "{book}: {command}: {said}");
            let shapes: Vec<_> = said.lines().map(shape).collect();
            for line in lines {
                assert!(shapes.contains(&shape(&line)), "{book}: {command} does not print {line:?} but {said}");
            }
            if let Some(dir) = env::var_os(WRITE_TO) {
                let path = Path::new(&dir).join(&book);
                let before = fs::read_to_string(&path).unwrap_or_default();
                fs::write(path, format!("{before}$ {command}\n{said}\n")).expect("written");
            }
        }
    }
}
