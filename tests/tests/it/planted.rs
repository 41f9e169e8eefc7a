//! Bugs on purpose are where their list says, have something that is to find them, and are in no program but those that
//! are built for them. Each is in a chapter of `docs/milestones`, whose commands CI types: they say that it is caught.
use gavel_runtime::boundary::planted::VARIABLE;
use gavel_tests::{
    atlas::Atlas,
    planted::{Catch, Change, bugs::BUGS},
    process::binary,
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Everything that is said to servers: statements as they were prepared, and the runtime's own sources.
fn everything_said() -> Vec<String> {
    let prepared = fs::read_dir(root().join(".sqlx")).expect(".sqlx").map(|entry| {
        let text = fs::read_to_string(entry.expect("a file").path()).expect("text");
        let prepared: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        prepared["query"].as_str().expect("a query").to_owned()
    });
    let written = ["runtime/src/postgres/tx.rs", "runtime/src/redis/scripts.rs"];
    prepared.chain(written.map(|path| fs::read_to_string(root().join(path)).expect("text"))).collect()
}

#[test]
fn each_is_somewhere_in_the_code() {
    let said_anywhere = everything_said();
    for bug in BUGS {
        for change in bug.changes {
            let found = match change {
                Change::Said(text, _) | Change::CommitBefore(text) | Change::Autonomous(text) => {
                    said_anywhere.iter().any(|said| said.contains(text))
                }
                Change::Rule(file, text, _) => {
                    let path = root().join("handlers/rules/src").join(file);
                    fs::read_to_string(path).is_ok_and(|source| source.contains(text))
                }
                Change::ConfirmNotAwaited | Change::TakenOnDelivery => true,
            };
            assert!(found, "{}: {change:?} is nowhere in the code", bug.name);
        }
    }
}

#[test]
fn each_has_a_name_of_its_own_and_something_that_is_to_find_it() {
    let names: BTreeSet<_> = BUGS.iter().map(|bug| bug.name).collect();
    assert_eq!(names.len(), BUGS.len(), "a name is there twice");
    let atlas = Atlas::read(&root()).expect("the atlas");
    for bug in BUGS {
        assert!(!bug.saying.is_empty(), "{}: what is said when it is found?", bug.name);
        let is_there = match bug.caught_by {
            Catch::Test(test) => {
                let (module, name) = test.split_once("::").expect("module::test");
                let path = root().join(format!("tests/tests/it/{module}.rs"));
                fs::read_to_string(path).is_ok_and(|source| source.contains(&format!("fn {name}()")))
            }
            Catch::Case(case) => {
                let site = case.split(' ').nth(1).expect("--site SITE");
                atlas.sites.iter().any(|place| place.site.name == site)
            }
            Catch::Rule(module) => {
                root().join(format!("handlers/rules/src/{}.rs", module.trim_end_matches("::"))).is_file()
            }
        };
        assert!(is_there, "{}: {:?} is not there", bug.name, bug.caught_by);
    }
}

#[test]
fn each_is_to_be_found_in_a_chapter() {
    let chapters =
        fs::read_dir(root().join("docs/milestones")).expect("chapters").map(|entry| entry.expect("a file").path());
    let texts: Vec<_> = chapters.filter_map(|path| fs::read_to_string(path).ok()).collect();
    let lines = texts.iter().flat_map(|text| text.lines());
    let planted: BTreeSet<_> =
        lines.filter_map(|line| line.strip_prefix("$ cargo xtask plant ")).flat_map(|names| names.split(' ')).collect();
    let all: BTreeSet<_> = BUGS.iter().map(|bug| bug.name).collect();
    assert_eq!(planted, all);
}

#[test]
fn no_program_has_them_that_is_not_built_for_them() {
    for program in ["gavel", "probe-worker"] {
        let mut grep = Command::new("grep");
        let looked = grep.args(["--quiet", "--text", "--fixed-strings", VARIABLE]).arg(binary(program)).status();
        assert_eq!(looked.expect("grep").code(), Some(1), "{program} looks at {VARIABLE}");
    }
}
