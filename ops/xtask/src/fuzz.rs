//! Looks for bytes that no request should be able to do harm with, led by what of the decoder they reach.
use crate::{
    install::{CPP_COMPILER, PROTOC, ensure},
    progress::{Step, run},
};
use clap::Args;
use std::{fs, process::Command};

/// What libFuzzer wants of the compiler (`cargo fuzz` gives the same): counters on every edge, and the operands of
/// comparisons. The sanitizers, which need a nightly compiler, are left out: the decoder has no unsafe code of ours.
const INSTRUMENTED: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                            -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                            -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing";

/// Fuzzes the decoder, from `tests/corpus` and from what earlier runs of this checkout have found.
#[derive(Args)]
pub(crate) struct Fuzz {
    /// For so long
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

impl Fuzz {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        ensure(&[PROTOC, CPP_COMPILER])?;
        let (root, host) = (crate::root(), host()?);
        let (target, crate_dir) = (root.join("target/fuzz"), root.join("tests/fuzz"));
        let step = Step::begin("building with instruments; the first time takes some minutes");
        let mut build = Command::new("cargo");
        build.args(["build", "--release", "--locked", "--target", &host, "--target-dir"]).arg(&target);
        // Named targets keep build scripts and macros, which are not to be instrumented, apart.
        run(build.current_dir(crate_dir).env("RUSTFLAGS", INSTRUMENTED))?;
        step.done("built");
        let found = target.join("corpus");
        fs::create_dir_all(&found)?;
        let mut fuzz = Command::new(target.join(host).join("release/decoder"));
        fuzz.arg(&found).arg(root.join("tests/corpus"));
        fuzz.arg(format!("-max_total_time={}", self.seconds)).args(["-max_len=4096", "-print_final_stats=1"]);
        // What makes it fail is kept there, to be run again and, once mended, to go into the corpus.
        fuzz.arg(format!("-artifact_prefix={}/", target.display()));
        run(&mut fuzz)
    }
}

/// Checks that it can be built, without instruments.
pub(crate) fn check() -> anyhow::Result<()> {
    ensure(&[PROTOC, CPP_COMPILER])?;
    let mut check = Command::new("cargo");
    check.args(["check", "--locked", "--manifest-path", "tests/fuzz/Cargo.toml", "--target-dir", "target"]);
    run(check.current_dir(crate::root()))
}

/// This machine's name in Rust's terms.
fn host() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("-vV").output()?;
    let text = String::from_utf8(output.stdout)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(ToOwned::to_owned).ok_or_else(|| anyhow::anyhow!("rustc -vV names no host:\n{text}"))
}
