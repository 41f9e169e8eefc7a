//! Generates the message types, poem-grpc services and clients, and the descriptor set from `proto/`.
use std::{env, error::Error, path::PathBuf, process::Command};

const CONTRACTS: [&str; 11] = [
    "gavel/v1/errors.proto",
    "gavel/v1/stream.proto",
    "gavel/v1/item.proto",
    "gavel/v1/bid.proto",
    "gavel/v1/user.proto",
    "gavel/v1/backfill.proto",
    "gavel/v1/rebuild.proto",
    "gavel/v1/ops.proto",
    "gavel/events/v1/item_event.proto",
    "external/externalscaler.proto",
    "external/grpc/health/v1/health.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let protoc = env::var_os("PROTOC").unwrap_or_else(|| "protoc".into());
    if Command::new(&protoc).arg("--version").output().is_err() {
        return Err("protoc is not installed: run `cargo xtask setup`, or install the package protobuf-compiler, \
                    or name a binary in PROTOC"
            .into());
    }
    for contract in CONTRACTS {
        println!("cargo::rerun-if-changed={contract}");
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    poem_grpc_build::Config::new()
        .file_descriptor_set_path(out.join("gavel.fds"))
        .enable_type_names()
        .compile(&CONTRACTS, &["."])?;
    Ok(())
}
