//! ops/vps as it stands there: its units and scripts. `cargo xtask vps` installs it on a Debian of its own.
use gavel_tests::process::binary;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

const PROGRAMS: [(&str, &str); 3] = [
    ("gavel-service@.service", "bid-service"),
    ("gavel-worker@.service", "bid-worker"),
    ("gavel-backfills.service", "bid-worker"),
];

fn vps() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../ops/vps")
}

fn read(file: &str) -> String {
    fs::read_to_string(vps().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// A unit's settings of that name.
fn settings<'a>(unit: &'a str, name: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('=')).collect()
}

/// The variables that a unit gives its program.
fn environment(unit: &str) -> BTreeMap<String, String> {
    let own = settings(unit, "Environment").into_iter().flat_map(str::split_whitespace).map(str::to_owned);
    let common = read("settings.env");
    let common = common.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
    own.chain(common).filter_map(|pair| pair.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()))).collect()
}

#[test]
fn every_variable_is_a_setting_and_every_secret_a_credential() {
    for (file, program) in PROGRAMS {
        let unit = read(&format!("systemd/{file}"));
        let help = Command::new(binary(program)).arg("--help").output().expect("its help").stdout;
        let help = String::from_utf8(help).expect("text");
        let credentials: Vec<_> =
            settings(&unit, "LoadCredential").iter().filter_map(|one| one.split_once(':')).collect();
        assert!(credentials.iter().all(|(_, from)| from.starts_with("/etc/gavel/")), "{credentials:?}");
        let variables = environment(&unit);
        assert!(variables.len() > 4, "{variables:?}");
        for (variable, value) in variables {
            let setting = variable.trim_end_matches("_FILE");
            let is_known = help.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == setting);
            assert!(is_known, "{file}: {program} knows no {variable}");
            if variable.ends_with("_FILE") {
                let credential = value.strip_prefix("%d/").expect("a credential's file");
                assert!(
                    credentials.iter().any(|(name, _)| *name == credential),
                    "{file} has no credential {credential}"
                );
            }
        }
    }
}

#[test]
fn a_unit_has_the_time_that_its_drain_takes() {
    for (file, _) in PROGRAMS {
        let unit = read(&format!("systemd/{file}"));
        let variables = environment(&unit);
        let ms = |name: &str| variables.get(name).map_or(0, |value| value.parse::<u64>().expect("milliseconds"));
        let killed: u64 = settings(&unit, "TimeoutStopSec")[0].parse().expect("seconds");
        let (delay, grace) = (ms("GAVEL_DRAIN_DELAY_MS"), ms("GAVEL_GRACE_MS"));
        assert!(grace > 0 && delay < grace && grace < killed * 1_000, "{file}");
    }
}

#[test]
fn its_scripts_refuse_what_they_do_not_know() {
    for (script, arguments, says) in [
        ("install", &["host", "--mail", "x"][..], "allowed: --email, --acme"),
        ("install", &["no host", "--acme", "none"], "is no host name"),
        ("install", &[], "Puts Gavel on a Debian"),
        ("deploy", &["--forward"], "allowed: --back"),
        ("deploy", &["nothing.tar.gz"], "there is no nothing.tar.gz"),
        ("restore", &[], "restore latest"),
        ("restore", &["yesterdayish"], "is no moment; allowed: latest"),
    ] {
        // They look at their arguments before they look at anything else.
        let mut command = Command::new(vps().join(script));
        let refused = command.args(arguments).output().expect("it runs");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(
            !refused.status.success() && (said.contains(says) || said.contains("only root can")),
            "{script}: {said}"
        );
    }
}

#[test]
fn its_scripts_can_be_read_to_their_end() {
    for script in ["install", "deploy", "restore", "drill", "renewed", "../k8s/deploy"] {
        let read = Command::new("bash").arg("-n").arg(vps().join(script)).output().expect("bash");
        assert!(read.status.success(), "{script}: {}", String::from_utf8_lossy(&read.stderr));
    }
}
