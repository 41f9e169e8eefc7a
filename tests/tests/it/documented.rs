//! Commands that README and the documents show: bidctl's, curl's and buf's are run as they stand there, and xtask's are
//! at least understood. And what they name is there.
use chrono::{TimeDelta, Utc};
use gavel_tests::{
    Process, System,
    atlas::{self, Atlas},
    eventually,
    process::binary,
};
use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

/// What a command that goes on and on is given.
const LOOK: Duration = Duration::from_secs(3);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().expect("the checkout")
}

/// Every document of the checkout, with its text.
fn documents() -> Vec<(PathBuf, String)> {
    let listed = Command::new("git").args(["ls-files", "*.md"]).current_dir(root()).output().expect("git");
    let names = String::from_utf8(listed.stdout).expect("names");
    let all: Vec<_> =
        names.lines().map(|name| (PathBuf::from(name), fs::read_to_string(root().join(name)).expect("text"))).collect();
    assert!(all.len() > 5, "git lists them: {all:?}");
    all
}

/// README, and what it leads users to.
fn readme() -> String {
    let is_for_users = |(name, _): &(PathBuf, String)| name.starts_with("docs") || name == Path::new("README.md");
    documents().into_iter().filter(is_for_users).map(|(_, text)| text).collect::<Vec<_>>().join("\n")
}

/// Words as a shell splits them, a comment left out.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for character in line.chars() {
        match (quote, character) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, '#') if word.is_none() => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Lines of shell blocks that begin with that.
fn commands(begin: &str) -> Vec<Vec<String>> {
    let text = readme();
    let blocks = text.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let lines: Vec<_> = blocks.flat_map(str::lines).filter_map(|line| line.strip_prefix(begin)).map(words).collect();
    assert!(!lines.is_empty(), "README shows no {begin}");
    lines
}

#[tokio::test]
async fn every_command_of_bidctl_in_the_readme_does_what_it_says() {
    let system = System::new().await;
    let (service, api) = system.service().await;
    let _worker = system.worker().await;
    api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    let mut variables = system.variables(&[("GAVEL_JWT_SIGNING_KEY", system.signing_key())]);
    variables.push(("GAVEL_URL".to_owned(), format!("http://{}", service.address().await)));
    variables.push(("GAVEL_OPS_URL".to_owned(), format!("http://{}", service.ops_address().await)));
    // A worker that has only just started has not declared its queues yet, and the doctor says so.
    let is_well = || async { Process::start(&binary("bidctl"), &["doctor"], &variables).ended().await.success() };
    eventually("the doctor finds nothing", is_well, |well| *well).await;
    for arguments in commands("target/debug/bidctl ") {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let mut process = Process::start(&binary("bidctl"), &arguments, &variables);
        let is_endless = arguments.contains(&"--watch");
        if is_endless {
            assert!(
                tokio::time::timeout(LOOK, process.ended()).await.is_err(),
                "{arguments:?}: {:?}",
                process.output()
            );
            process.kill();
            continue;
        }
        let ended = tokio::time::timeout(LOOK * 5, process.ended()).await;
        let ended = ended.unwrap_or_else(|_| panic!("{arguments:?} does not end"));
        let output = process.output().join("\n");
        // Where nothing is dead or parked there is nothing to show; a word of clap's would be a mistake of the
        // document's.
        assert!(ended.success() || !output.contains("Usage:"), "{arguments:?}: {output}");
        assert!(ended.success(), "{arguments:?}: {output}");
    }
}

#[tokio::test]
async fn what_the_readme_sends_by_curl_and_buf_is_answered() {
    let system = System::new().await;
    let (service, api) = system.service().await;
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    let address = service.address().await.clone();
    let shown = |begin: &str| {
        let mut all = commands(begin);
        assert_eq!(all.len(), 1, "{all:?}");
        let filled = |word: String| word.replace("localhost:8080", &address).replace('…', &item.item_id);
        all.remove(0).into_iter().map(filled).collect::<Vec<_>>()
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let listed = Command::new("curl").args(shown("curl ")).output().expect("curl");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains(&item.item_id), "{listed}");
    // A stream goes on and on.
    let mut watching = Command::new("npx");
    watching.args(shown("npx ")).current_dir(root).stdout(Stdio::piped()).process_group(0);
    let mut watching = watching.spawn().expect("npx");
    let told = BufReader::new(watching.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let snapshot: Vec<_> = told.take_while(|line| !line.contains(&item.item_id)).collect();
    let group = format!("-{}", watching.id());
    Command::new("kill").args(["-9", "--", &group]).status().expect("kill");
    watching.wait().expect("ended");
    assert!(snapshot.iter().any(|line| line.contains("snapshot")), "{snapshot:?}");
}

#[test]
fn every_command_of_xtask_in_the_readme_is_understood() {
    let text = readme();
    let shown = text.split('`').filter_map(|code| code.strip_prefix("cargo xtask ")).map(str::to_owned);
    let mut shown: Vec<_> = shown.filter(|command| !command.contains('\n')).collect();
    let blocks = commands("cargo xtask ").into_iter().map(|words| words.join(" "));
    shown.extend(blocks);
    assert!(shown.len() > 15, "{shown:?}");
    let program: PathBuf = binary("xtask");
    for command in shown {
        // Where something is left to the reader, it stands in brackets or capitals.
        let arguments: Vec<_> = words(&command)
            .into_iter()
            .map(|word| word.trim_matches(['[', ']']).to_owned())
            .filter(|word| !word.chars().all(char::is_uppercase))
            .collect();
        let seconds =
            if arguments.last().is_some_and(|last| last == "--seconds") { vec!["1".to_owned()] } else { Vec::new() };
        // What follows in `test` is nextest's: with it the tests would run.
        let own = if arguments[0] == "test" { &arguments[..1] } else { &arguments[..] };
        let output = Command::new(&program).args(own).args(&seconds).arg("--help").output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "cargo xtask {command}: {said}");
    }
}

/// Names of files in a text: where links lead, and what looks like a path in the checkout.
fn named(text: &str) -> Vec<String> {
    let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let links = links.filter(|link| !link.contains("://") && !link.starts_with('#')).map(str::to_owned);
    let rooms = ["handlers/", "runtime/", "proto/", "migrations/", "ops/", "tests/", "docs/"];
    // Every second piece between backticks is code; blocks of code have three, and stay outside by that.
    let codes = text.split('`').skip(1).step_by(2);
    let is_whole = |code: &&str| !code.contains(|c: char| c.is_whitespace() || "<>{}*…:".contains(c));
    let paths = codes.filter(is_whole).filter(|code| rooms.iter().any(|room| code.starts_with(room)));
    links.chain(paths.map(|path| format!("/{path}"))).collect()
}

#[test]
fn what_documents_lead_to_is_there() {
    let mut seen = 0;
    // What the history names was there once.
    for (document, text) in documents().into_iter().filter(|(document, _)| document != Path::new("CHANGELOG.md")) {
        for name in named(&text) {
            let name = name.split('#').next().unwrap_or_default();
            let beside = root().join(&document).with_file_name(name);
            // Tests are called by their places in `tests/it/`, for short.
            let short = name.replace("/tests/it/", "/tests/tests/it/");
            let found = [beside, root().join(short.trim_start_matches('/'))].iter().any(|path| path.exists());
            assert!(found || name.is_empty(), "{}: {name} is not there", document.display());
            seen += 1;
        }
    }
    assert!(seen > 40, "they lead somewhere: {seen}");
}

#[test]
fn files_that_documents_name_are_somewhere() {
    let listed = Command::new("git").args(["ls-files"]).current_dir(root()).output().expect("git");
    let files = String::from_utf8(listed.stdout).expect("names");
    for (document, text) in documents().iter().filter(|(document, _)| document != Path::new("CHANGELOG.md")) {
        let codes = text.split('`').skip(1).step_by(2);
        let names = codes.filter(|code| {
            Path::new(code).extension().is_some_and(|ext| ext == "rs")
                && !code.contains(|c: char| c.is_whitespace() || "<{*".contains(c))
        });
        for name in names {
            let is_there = files.lines().any(|file| file.ends_with(&format!("/{name}")) || file == name);
            assert!(is_there, "{}: there is no {name}", document.display());
        }
    }
}

#[test]
fn the_handler_in_the_readme_is_one_of_the_auctions() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README");
    let shown = readme.split("```rust\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a handler");
    let own = fs::read_to_string(root().join("handlers/src/start_item/mod.rs")).expect("the handler");
    let own: Vec<_> = own.lines().map(str::trim).collect();
    for line in shown.lines().map(str::trim).filter(|line| !line.starts_with("// …")) {
        assert!(own.contains(&line), "it has no line {line:?}");
    }
}

/// They are made of what a run has kept, and it names nothing that is gone.
#[test]
fn the_pages_of_the_atlas_are_what_its_entries_say() {
    let atlas = Atlas::read(&root()).expect("the entries");
    assert!(atlas.cases.len() > 500, "{} cases", atlas.cases.len());
    assert_eq!(atlas.gone(&root()), Vec::<&str>::new(), "cargo xtask atlas --all --write");
    for (name, text) in atlas::documents(&root(), &atlas) {
        let written = fs::read_to_string(root().join(name)).expect("the page");
        assert!(written == text, "{name} is not what its entries say: cargo xtask atlas --render");
    }
    let failing: Vec<_> = atlas.cases.iter().filter(|entry| !entry.holds()).collect();
    assert!(failing.is_empty(), "{failing:?}");
}

/// What the page says of capacity was measured, and by the last run that was kept.
#[test]
fn the_figures_of_capacity_are_those_that_were_measured() {
    let read = |name: &str| fs::read_to_string(root().join("docs").join(name)).expect("the page");
    let (capacity, nightly) = (read("capacity.md"), read("nightly.md"));
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let measured = |text: &str| text.lines().filter(|line| line.starts_with("| ")).map(cells).collect::<Vec<_>>();
    // Where another bench has a row of that name as well, the page names the one.
    let of_bench = |bench: &str| nightly.split("\n## ").find_map(|section| section.strip_prefix(bench)).map(measured);
    let tables = capacity.split("| as measured by |\n").skip(1);
    let rows = tables.flat_map(|table| table.lines().skip(1).take_while(|line| line.starts_with("| ")));
    let quoted: Vec<_> = rows.map(cells).collect();
    assert!(quoted.len() > 15, "{quoted:?}");
    for row in quoted {
        let [_, figure, by] = &row[..] else { panic!("three columns: {row:?}") };
        let bench = by.split_once(": ").and_then(|(bench, work)| Some((of_bench(bench)?, work)));
        let (measured, by) = bench.unwrap_or_else(|| (measured(&nightly), by));
        let found =
            measured.iter().find(|measured| measured[0] == by).unwrap_or_else(|| panic!("nothing measures {by}"));
        assert_eq!(*figure, format!("{} {}", found[1], found[2]), "{by}");
    }
}
