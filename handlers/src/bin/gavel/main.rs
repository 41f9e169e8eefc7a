//! One program with three names, as it is deployed: what it does is the name that it is called by, as with BusyBox.
//! Together they are a third of what they would be apart, and are built and linked once.

mod bidctl;
mod service;
mod worker;

use mimalloc::MiMalloc;
use std::{env, ffi::OsStr, path::Path, process::ExitCode};

/// Where variables are listed that one of the three reads: they may share a file.
const LISTS: [&str; 3] = [service::HELP, worker::HELP, bidctl::VARIABLES];

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    let called = env::args_os().next().unwrap_or_default();
    match Path::new(&called).file_name().and_then(OsStr::to_str) {
        Some("bid-service") => service::main(),
        Some("bid-worker") => worker::main(),
        Some("bidctl") => bidctl::main(),
        _ => {
            eprintln!("gavel: it is called as bid-service, bid-worker or bidctl, by links of these names to it");
            ExitCode::FAILURE
        }
    }
}
