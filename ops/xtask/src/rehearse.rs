//! A change of the schema rehearsed with the programs of the last release, built from their own sources.
use crate::{
    bench::RELEASED,
    install::{C_COMPILER, POSTGRESQL, PROTOC, ensure},
    lend::lend,
    names::{NAMES, PROGRAM},
    progress::{Step, run, run_quietly},
    servers::{layout::Layout, processes::Processes},
    test::{EVERYTHING, build, build_with},
};
use anyhow::{Context, bail};
use clap::Args;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Names the last release's revision.
const LAST_RELEASE: &str = "ops/last-release";
const ROWS: u64 = 3_000_000;
const SMOKE_ROWS: u64 = 100_000;
const OLD: [&str; 3] = ["-p", "gavel", "--bins"];
/// Both are optimised alike, and not across crates: that takes tens of minutes.
const OPTIMISED: [(&str, &str); 2] =
    [("CARGO_PROFILE_RELEASE_LTO", "off"), ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")];

/// Rehearse the schema's changes with the last release's programs beside these, under load; writes
/// target/bench/rehearsal.html and .json.
#[derive(Args)]
pub(crate) struct Rehearse {
    /// Bids in the table
    #[arg(long, default_value_t = ROWS)]
    rows: u64,
    /// For correctness alone: fewer rows, shorter phases, not optimised
    #[arg(long)]
    pub(crate) smoke: bool,
}

impl Rehearse {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        ensure(&[C_COMPILER, PROTOC, POSTGRESQL])?;
        let new = if self.smoke { build(&EVERYTHING, false)? } else { build_with(&RELEASED, true, &OPTIMISED)? };
        let old = last_release(if self.smoke { Profile::Dev } else { Profile::Release })?;
        let layout = Layout::claim("bench")?;
        layout.wipe_data()?;
        let servers = Processes::start(layout, true)?;
        let urls = &servers.urls;
        let rows = if self.smoke { self.rows.min(SMOKE_ROWS) } else { self.rows };
        let out = crate::root().join(if self.smoke { "target/bench/smoke" } else { "target/bench" });
        let mut rehearsal = Command::new(new.join("gavel-bench"));
        rehearsal.args(["rehearse", &urls.postgres]).args([&old, &new, &out]).arg(rows.to_string());
        if self.smoke {
            rehearsal.env("SMOKE", "1");
        }
        run(rehearsal.env("AMQP_URL", &urls.amqp).env("REDIS_URL", &urls.redis))
    }
}

/// How it is built.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Profile {
    Dev,
    Release,
}

/// The last release's programs: built where they are not yet, out of a worktree of its own.
pub(crate) fn last_release(profile: Profile) -> anyhow::Result<PathBuf> {
    let revision = revision()?;
    let (profile_name, built) = match profile {
        Profile::Dev => ("dev", "debug"),
        Profile::Release => ("release", "release"),
    };
    let out = crate::root().join(format!("target/last-release/{revision}-{profile_name}"));
    if NAMES.iter().all(|name| out.join(name).is_file()) {
        return Ok(out);
    }
    let tree = crate::root().join("target/last-release").join(&revision);
    check_out(&revision, &tree)?;
    eprintln!("  … building the last release, {revision}");
    // Apart from ours: of two checkouts in one directory cargo takes the crates for the same.
    let target = crate::root().join("target/last-release/target");
    if profile == Profile::Dev {
        // Most of them are of the same version.
        lend(&target)?;
    }
    let mut cargo = Command::new("cargo");
    cargo.arg("build").args(OLD).args(["--profile", profile_name]).current_dir(&tree);
    run(cargo.env("CARGO_TARGET_DIR", &target).envs(OPTIMISED))?;
    fs::create_dir_all(&out)?;
    for name in NAMES {
        // One program each, or one with these names.
        let program = if tree.join("handlers/src/bin/gavel").is_dir() { PROGRAM } else { name };
        fs::copy(target.join(built).join(program), out.join(name)).with_context(|| name.to_owned())?;
    }
    Ok(out)
}

/// The last release's revision.
fn revision() -> anyhow::Result<String> {
    let text = fs::read_to_string(crate::root().join(LAST_RELEASE)).context(LAST_RELEASE)?;
    Ok(text.trim().to_owned())
}

/// Whether this clone has it: one without a history does not.
pub(crate) fn is_possible() -> bool {
    let has = |revision: String| {
        let object = format!("{revision}^{{commit}}");
        run_quietly(Command::new("git").args(["cat-file", "-e", &object]).current_dir(crate::root())).is_ok()
    };
    revision().is_ok_and(has)
}

fn check_out(revision: &str, tree: &Path) -> anyhow::Result<()> {
    if !is_possible() {
        bail!("this clone has no revision {revision}, which {LAST_RELEASE} names: fetch its whole history");
    }
    if tree.join("Cargo.toml").is_file() {
        return Ok(());
    }
    let step = Step::begin("checking out the last release");
    let git = |arguments: &[&str]| run_quietly(Command::new("git").args(arguments).current_dir(crate::root()));
    // One that was there and was deleted with the target directory.
    git(&["worktree", "prune"])?;
    git(&["worktree", "add", "--force", "--detach", &tree.display().to_string(), revision])?;
    step.done("last release checked out");
    Ok(())
}
