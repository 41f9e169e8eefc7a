//! Generates the suite's messages from the contracts that its module brings along (CONFORMANCE_PROTO says where
//! they are), and those of gRPC's test service.
use std::{env, error::Error, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed=CONFORMANCE_PROTO");
    println!("cargo::rerun-if-changed=proto");
    let suite =
        env::var("CONFORMANCE_PROTO").map_err(|_| "CONFORMANCE_PROTO is missing: run `cargo xtask conformance`")?;
    let health = "../../proto/external/grpc/health/v1/health.proto";
    let out = PathBuf::from(env::var("OUT_DIR")?);
    prost_build::Config::new()
        .file_descriptor_set_path(out.join("conformance.fds"))
        .enable_type_names()
        .compile_protos(
            &[
                format!("{suite}/connectrpc/conformance/v1/service.proto"),
                format!("{suite}/connectrpc/conformance/v1/server_compat.proto"),
                health.to_owned(),
                "proto/grpc/testing/test.proto".to_owned(),
            ],
            &[suite, "../../proto".to_owned(), "proto".to_owned()],
        )?;
    Ok(())
}
