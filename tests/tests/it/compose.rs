//! docker-compose.yml gives away nothing: what it publishes, mounts and waits for, read from the file itself.
use serde_yaml_ng::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn services() -> BTreeMap<String, Value> {
    let text = fs::read_to_string(root().join("docker-compose.yml")).expect("the file");
    let mut file: Value = serde_yaml_ng::from_str(&text).expect("YAML");
    file.apply_merge().expect("merge keys");
    serde_yaml_ng::from_value(file["services"].clone()).expect("services")
}

fn list(service: &Value, key: &str) -> Vec<String> {
    service.get(key).map(|l| serde_yaml_ng::from_value(l.clone()).expect("a list of strings")).unwrap_or_default()
}

fn environment(service: &Value) -> BTreeMap<String, String> {
    service.get("environment").map(|e| serde_yaml_ng::from_value(e.clone()).expect("a map")).unwrap_or_default()
}

#[test]
fn ports_are_published_to_this_machine_alone() {
    let published: Vec<_> =
        services().iter().flat_map(|(name, s)| list(s, "ports").into_iter().map(move |p| (name.clone(), p))).collect();
    assert!(!published.is_empty(), "nothing is published, so nobody can use it");
    for (name, port) in published {
        assert!(port.starts_with("127.0.0.1:"), "{name} publishes {port} to everybody");
    }
}

#[test]
fn the_signing_key_is_where_tokens_are_made_and_nowhere_else() {
    let holders: Vec<_> = services()
        .into_iter()
        .filter(|(_, service)| list(service, "volumes").iter().any(|mount| mount.contains("signing")))
        .map(|(name, _)| name)
        .collect();
    assert_eq!(holders, ["accounts", "bidctl"]);
}

#[test]
fn each_program_reads_its_own_account_and_writes_none() {
    let mut programs = BTreeMap::new();
    for (name, service) in services() {
        for mount in list(&service, "volumes").iter().filter(|m| m.contains("-account:") || m.contains("-key:")) {
            if name != "accounts" {
                assert!(mount.ends_with(":ro"), "{name} may write {mount}");
            }
        }
        let account =
            list(&service, "volumes").iter().find_map(|m| m.strip_suffix(":/run/accounts:ro").map(str::to_owned));
        programs.insert(name, account.unwrap_or_default());
    }
    assert_eq!(programs["service"], "service-account");
    assert_eq!(programs["worker"], "worker-account");
    assert_eq!(programs["migrate"], "migrator-account");
    assert_eq!(programs["backfills"], "migrator-account");
    assert_eq!(programs["bidctl"], "operator-account");
    let administrators: Vec<_> = programs.iter().filter(|(_, account)| *account == "administrator-account").collect();
    assert_eq!(administrators.len(), 1, "{administrators:?}");
}

#[test]
fn no_password_stands_in_the_file() {
    for (name, service) in services() {
        for (variable, value) in environment(&service) {
            let secret = ["PASSWORD", "_URL", "SECRET", "TOKEN"].iter().any(|word| variable.contains(word));
            let address = value.starts_with("http://") && !value.contains('@');
            assert!(!secret || address || variable.ends_with("_FILE"), "{name} has {variable} as text");
        }
    }
}

#[test]
fn a_drain_has_the_time_that_it_takes() {
    let drain = Command::new(gavel_tests::process::binary("bid-worker"))
        .arg("--help")
        .output()
        .expect("the worker's help")
        .stdout;
    let drain = String::from_utf8(drain).expect("text");
    let grace = drain.lines().find(|line| line.contains("GAVEL_GRACE_MS")).expect("the variable in the help");
    let drain_ms: u64 = grace.split_whitespace().last().and_then(|ms| ms.parse().ok()).expect("its default");
    for name in ["service", "worker"] {
        let stop = services()[name]["stop_grace_period"].as_str().expect("a time to stop").to_owned();
        let stop_s: u64 = stop.strip_suffix('s').and_then(|s| s.parse().ok()).expect("seconds");
        assert!(stop_s * 1000 > drain_ms, "{name} is killed after {stop_s} s; it may drain for {drain_ms} ms");
    }
}

/// Cargo refuses a workspace with a member whose directory is missing, so an image could not be built.
#[test]
fn every_member_of_the_workspace_reaches_the_image() {
    let ignored = fs::read_to_string(root().join(".dockerignore")).expect("the file");
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest");
    let members = manifest.lines().find(|line| line.starts_with("members")).expect("members");
    for member in members.split('"').skip(1).step_by(2) {
        let admitted = ignored.lines().filter_map(|line| line.strip_prefix('!'));
        let admitted = admitted.into_iter().any(|path| Path::new(member).starts_with(path));
        assert!(admitted, "{member} is kept out by .dockerignore");
    }
}

#[test]
fn what_the_image_is_based_on_changes_only_by_a_commit() {
    let file = fs::read_to_string(root().join("Dockerfile")).expect("the file");
    let arguments = file.lines().filter_map(|line| line.strip_prefix("ARG ")?.split_once("_IMAGE="));
    let pinned: Vec<_> = arguments.map(|(name, image)| (format!("${{{name}_IMAGE}}"), image)).collect();
    assert_eq!(pinned.len(), 2, "{pinned:?}");
    for (name, image) in &pinned {
        let digest = image.split_once("@sha256:").map(|(_, digest)| digest).unwrap_or_default();
        assert!(digest.len() == 64 && digest.chars().all(|c| c.is_ascii_hexdigit()), "{name} is {image}");
    }
    // And by nothing beside them: a stage begins from one of these, or from another stage.
    let froms: Vec<_> = file.lines().filter_map(|line| line.strip_prefix("FROM ")).collect();
    let stages: Vec<_> = froms.iter().filter_map(|from| Some(from.split_once(" AS ")?.1.to_owned())).collect();
    for from in &froms {
        let image = from.split(' ').next().unwrap_or_default().to_owned();
        assert!(stages.contains(&image) || pinned.iter().any(|(name, _)| *name == image), "FROM {from}");
    }
}
