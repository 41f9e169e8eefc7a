//! Connect's conformance service and gRPC's test service, on the same listener, edge and limits as any application of
//! the runtime.
//!
//! The suite's runner starts this program, says on its standard input what it is to be, and wants to hear on its
//! standard output where it listens. A process of the runtime logs there; so the server is a child of it, and ends with
//! it.
mod handlers;
mod interop;
mod messages;

use anyhow::{Context, bail};
use gavel_runtime::{
    App,
    config::{Backends, Env, ProcessConfig, TokenConfig},
    process,
};
use messages::pb::{ServerCompatRequest, ServerCompatResponse};
use prost::Message;
use sqlx::migrate::Migrator;
use std::{
    env,
    io::{BufRead, BufReader, Read, Write, stdin, stdout},
    process::{Command, ExitCode, Stdio},
    thread,
};

static NONE: Migrator = Migrator::DEFAULT;
/// Says to be the server.
const SERVE: &str = "--serve";
/// Says to start the server and no more: another suite calls it.
const SERVE_FOR_OTHERS: &str = "--serve-for-others";
/// Nobody signs with it: all of the suite's calls are anonymous.
const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAcKYJIvTd/ZB90Ep57/2HkIKkULv6yBA6LLxlUziguLw=
-----END PUBLIC KEY-----
";
/// One address asks for everything.
const BOUNDLESS: [&str; 4] =
    ["GAVEL_READS_PER_ADDRESS", "GAVEL_STREAMS_PER_ADDRESS", "GAVEL_CONNECTIONS_PER_ADDRESS", "GAVEL_CALLS_PER_CALLER"];

fn main() -> ExitCode {
    if env::args().any(|argument| argument == SERVE) {
        // Whoever started this is gone when its end of the pipe is.
        thread::spawn(|| {
            let _ = stdin().read_to_end(&mut Vec::new());
            std::process::exit(0);
        });
        return process::exit("conformance", serve());
    }
    if env::args().any(|argument| argument == SERVE_FOR_OTHERS) {
        return process::exit("conformance", server().status().map(drop).map_err(Into::into));
    }
    process::exit("conformance", introduce())
}

#[tokio::main]
async fn serve() -> anyhow::Result<()> {
    let app = App::new("conformance", &NONE)
        .contracts(messages::DESCRIPTORS)
        .leaves_out(&handlers::NOT_OFFERED)
        .leaves_out(&interop::NOT_OFFERED)
        .rpc_io::<handlers::Unary>()
        .rpc_io::<handlers::IdempotentUnary>()
        .rpc_io::<handlers::Unimplemented>()
        .rpc_stream::<handlers::ServerStream>()
        .rpc_io::<interop::EmptyCall>()
        .rpc_io::<interop::UnaryCall>()
        .rpc_stream::<interop::StreamingOutputCall>();
    let mut env = Env::from_process();
    let backends = Backends::from_env(&mut env);
    let config = ProcessConfig::of_service(&mut env);
    let tokens = TokenConfig::from_env(&mut env, &config);
    env.finish()?;
    process::run_service(app, "conformance", &backends, &config, &tokens).await
}

fn server() -> Command {
    let mut server = Command::new("/proc/self/exe");
    server.arg(SERVE).envs(BOUNDLESS.map(|limit| (limit, "0")));
    server.env("GAVEL_JWT_PUBLIC_KEY", PUBLIC_KEY);
    server.env("GAVEL_LISTEN", "127.0.0.1:0").env("GAVEL_OPS_LISTEN", "127.0.0.1:0");
    server
}

/// Starts the server, and tells the runner where it is.
fn introduce() -> anyhow::Result<()> {
    let mut size = [0; 4];
    stdin().read_exact(&mut size)?;
    let mut request = vec![0; u32::from_be_bytes(size) as usize];
    stdin().read_exact(&mut request)?;
    ServerCompatRequest::decode(&*request)?;
    let mut server = server().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut log = BufReader::new(server.stdout.take().context("its output is piped")?);
    let port = port(&mut log)?;
    let response = ServerCompatResponse { host: "127.0.0.1".to_owned(), port, ..Default::default() }.encode_to_vec();
    stdout().write_all(&u32::try_from(response.len())?.to_be_bytes())?;
    stdout().write_all(&response)?;
    stdout().flush()?;
    // Somebody has to read what it logs.
    thread::spawn(move || log.lines().map_while(Result::ok).for_each(drop));
    // Held: waiting would close it.
    let _pipe = server.stdin.take();
    // The runner closes its end at once and kills this program in the end; the server notices by the pipe from here.
    server.wait()?;
    Ok(())
}

fn port(log: &mut impl BufRead) -> anyhow::Result<u32> {
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(&line?).unwrap_or_default();
        if line["msg"] == "ready" {
            let address = line["address"].as_str().unwrap_or_default();
            return address.rsplit(':').next().and_then(|port| port.parse().ok()).context("an address with a port");
        }
    }
    bail!("the server ended before it was ready")
}
