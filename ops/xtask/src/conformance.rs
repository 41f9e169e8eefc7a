//! Others' suites against the edge. They are written in Go, and built where there is a toolchain for it.
use crate::{
    go,
    install::{PROTOC, ensure},
    progress::{Step, run_quietly},
    servers::{layout::Layout, processes::Processes},
    test::{build, prepare},
};
use anyhow::{Context, bail};
use gavel_accounts::postgres::Role;
use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

const CONNECT: &str = "connectrpc.com/conformance";
const CONNECT_VERSION: &str = "v1.0.7";
const H2SPEC: &str = "github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible";
const GRPCURL: &str = "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3";

const INTEROP: &str = "google.golang.org/grpc/interop/client@v1.76.0";

/// gRPC's cases of what is offered; the others have streams of requests, or credentials of one provider.
const INTEROP_CASES: [&str; 8] = [
    "empty_unary",
    "large_unary",
    "server_streaming",
    "special_status_message",
    "unimplemented_method",
    "unimplemented_service",
    "pick_first_unary",
    "rpc_soak",
];

/// Cases of h2spec that are meant to fail, by their titles: on this port an invalid preface is a request of HTTP/1.1,
/// and answered as one.
const EXCEPTIONS: [&str; 1] = ["Sends invalid connection preface"];

/// The outcome of a suite.
struct Tally {
    suite: &'static str,
    cases: u32,
    passed: u32,
    /// Failed as they are meant to.
    excepted: u32,
    notes: String,
}

pub(crate) fn run() -> anyhow::Result<()> {
    if !go::is_here() {
        eprintln!("  conformance: not run, there is no Go toolchain");
        return Ok(());
    }
    ensure(&[PROTOC])?;
    let tools = Tools::install()?;
    let servers = Processes::start(Layout::claim("test")?, false)?;
    let bins = build(&["--package", "gavel", "--bins"], false)?;
    let name = format!("gavel_conformance_{}", std::process::id());
    prepare(&bins, &servers.urls, &name, &servers.passwords)?;
    let database = servers.urls.database_of(Role::Service, &servers.passwords, &name);
    let service = Service {
        program: build_service(&tools.contracts)?,
        database,
        amqp: servers.urls.amqp.clone(),
        redis: servers.urls.redis.clone(),
    };
    let tallies = [
        connect(&tools, &service)?,
        http2(&tools, &service)?,
        interop(&tools, &service)?,
        reflection(&tools, &service)?,
    ];
    println!("\n{:<28} {:>6} {:>7} {:>7}", "suite", "cases", "passed", "failed");
    let mut text = "| suite | cases | passed | |\n| --- | --- | --- | --- |\n".to_owned();
    for Tally { suite, cases, passed, notes, .. } in &tallies {
        println!("{suite:<28} {cases:>6} {passed:>7} {:>7}  {notes}", cases - passed);
        writeln!(text, "| {suite} | {cases} | {passed} | {notes} |")?;
    }
    let out = crate::root().join("target/bench");
    fs::create_dir_all(&out)?;
    fs::write(out.join("conformance.md"), text)?;
    if tallies.iter().any(|tally| tally.passed + tally.excepted < tally.cases) {
        bail!("some cases failed");
    }
    Ok(())
}

/// The suites' programs, and Connect's contracts.
struct Tools {
    connect: PathBuf,
    h2spec: PathBuf,
    interop: PathBuf,
    grpcurl: PathBuf,
    contracts: PathBuf,
}

impl Tools {
    fn install() -> anyhow::Result<Self> {
        let step = Step::begin("building the suites (once)");
        let tools = Self {
            connect: go::install(&format!("{CONNECT}/cmd/connectconformance@{CONNECT_VERSION}"))?,
            h2spec: go::install(H2SPEC)?,
            interop: go::install(INTEROP)?,
            grpcurl: go::install(GRPCURL)?,
            contracts: go::module_dir(&format!("{CONNECT}@{CONNECT_VERSION}"))?.join("proto"),
        };
        step.done("suites built");
        Ok(tools)
    }
}

fn build_service(contracts: &Path) -> anyhow::Result<PathBuf> {
    let step = Step::begin("building the service that the suites call");
    let root = crate::root();
    let mut cargo = Command::new("cargo");
    cargo.args(["build", "--locked", "--manifest-path", "tests/conformance/Cargo.toml", "--target-dir", "target"]);
    run_quietly(cargo.current_dir(&root).env("CONFORMANCE_PROTO", contracts))?;
    step.done("service built");
    Ok(root.join("target/debug/gavel-conformance"))
}

/// The application under test, and its servers.
struct Service {
    program: PathBuf,
    database: String,
    amqp: String,
    redis: String,
}

impl Service {
    fn with_servers<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command.env("DATABASE_URL", &self.database).env("AMQP_URL", &self.amqp).env("REDIS_URL", &self.redis)
    }

    /// Runs it by itself.
    fn serve(&self) -> anyhow::Result<Serving> {
        let mut command = Command::new(&self.program);
        command.arg("--serve-for-others").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = self.with_servers(&mut command).spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("its output is piped")?).lines();
        let found = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let line: serde_json::Value = serde_json::from_str(&line).ok()?;
            (line["msg"] == "ready")
                .then(|| [&line["address"], &line["ops_address"]].map(|a| a.as_str().map(str::to_owned)))
        });
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let Some([Some(address), Some(ops_address)]) = found else { bail!("the service does not start") };
        Ok(Serving { child, address, ops_address })
    }
}

struct Serving {
    child: Child,
    address: String,
    ops_address: String,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Connect's own suite: all three protocols.
fn connect(tools: &Tools, service: &Service) -> anyhow::Result<Tally> {
    let step = Step::begin("Connect's conformance suite");
    let mut runner = Command::new(&tools.connect);
    runner.args(["--conf", "tests/conformance/suite.yaml", "--mode", "server", "--"]).arg(&service.program);
    let output = service.with_servers(&mut runner).current_dir(crate::root()).output()?;
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    fs::write(crate::root().join("target/conformance.log"), text.as_bytes())?;
    let number = |after: &str| {
        let line = text.lines().rev().find(|line| line.contains(after))?;
        line.split(after).next()?.split_whitespace().last()?.trim_matches(',').parse::<u32>().ok()
    };
    let (Some(passed), Some(failed)) = (number(" passed"), number(" failed")) else {
        bail!("the runner has no result; see target/conformance.log")
    };
    step.done("see target/conformance.log");
    Ok(Tally { suite: "connectconformance v1.0.7", cases: passed + failed, passed, excepted: 0, notes: String::new() })
}

/// HTTP/2 to the letter.
fn http2(tools: &Tools, service: &Service) -> anyhow::Result<Tally> {
    let step = Step::begin("h2spec, strictly");
    let serving = service.serve()?;
    let (host, port) = serving.address.rsplit_once(':').context("an address with a port")?;
    let output = Command::new(&tools.h2spec).args(["-h", host, "-p", port, "--strict"]).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    fs::write(crate::root().join("target/h2spec.log"), &text)?;
    let summary = text.lines().find(|line| line.contains(" tests, ")).context("h2spec has no result")?;
    let number =
        |word: &str| summary.split(", ").find(|part| part.contains(word))?.split_whitespace().next()?.parse().ok();
    let (Some(cases), Some(passed)) = (number("tests"), number("passed")) else { bail!("h2spec says {summary}") };
    let is_expected = |line: &&str| EXCEPTIONS.iter().any(|exception| line.contains(exception));
    let failures = text.split("Failures:").nth(1).unwrap_or_default();
    let excepted = u32::try_from(failures.lines().filter(|line| line.contains('×')).filter(is_expected).count())?;
    step.done("see target/h2spec.log");
    Ok(Tally {
        suite: "h2spec --strict",
        cases,
        passed,
        excepted,
        notes: format!("{excepted} excepted: {}", EXCEPTIONS.join(", ")),
    })
}

/// gRPC's own client.
fn interop(tools: &Tools, service: &Service) -> anyhow::Result<Tally> {
    let step = Step::begin("gRPC's interop cases");
    let serving = service.serve()?;
    let (host, port) = serving.address.rsplit_once(':').context("an address with a port")?;
    let mut failed = Vec::new();
    for case in INTEROP_CASES {
        let mut client = Command::new(&tools.interop);
        client.args(["-server_host", host, "-server_port", port, "-test_case", case]);
        let output = client.output()?;
        if !output.status.success() {
            eprintln!("  {case}: {}", String::from_utf8_lossy(&output.stderr));
            failed.push(case);
        }
    }
    let (cases, failures) = (u32::try_from(INTEROP_CASES.len())?, u32::try_from(failed.len())?);
    step.done("interop cases run");
    Ok(Tally {
        suite: "grpc-go interop v1.76.0",
        cases,
        passed: cases - failures,
        excepted: 0,
        notes: failed.join(", "),
    })
}

/// grpcurl sees each service once.
fn reflection(tools: &Tools, service: &Service) -> anyhow::Result<Tally> {
    let serving = service.serve()?;
    let list = run_quietly(Command::new(&tools.grpcurl).args(["-plaintext", &serving.ops_address, "list"]))?;
    let mut services: Vec<_> = list.lines().collect();
    let all = services.len();
    services.dedup();
    let notes = services.join(", ");
    Ok(Tally {
        suite: "grpcurl list",
        cases: u32::try_from(all)?,
        passed: u32::try_from(services.len())?,
        excepted: 0,
        notes,
    })
}
