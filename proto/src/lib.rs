//! Gavel's contracts, generated from the `.proto` files beside this crate.
//!
//! [`v1`] is the gRPC API that clients call; [`events_v1`] is what travels on RabbitMQ;
//! [`externalscaler`] is what KEDA asks. Fields are only ever added:
//! a number once used is never given another meaning.

/// The API, package `gavel.v1`: messages, service traits, servers and clients.
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub, unused_qualifications)]
pub mod v1 {
    poem_grpc::include_proto!("gavel.v1");
}

/// The message contracts, package `gavel.events.v1`.
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub, unused_qualifications)]
pub mod events_v1 {
    poem_grpc::include_proto!("gavel.events.v1");
}

/// KEDA's contract for external scalers, package `externalscaler`.
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub, unused_qualifications)]
pub mod externalscaler {
    poem_grpc::include_proto!("externalscaler");
}

/// The standard health contract, package `grpc.health.v1`.
#[allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub, unused_qualifications)]
pub mod health_v1 {
    poem_grpc::include_proto!("grpc.health.v1");
}

/// The encoded `google.protobuf.FileDescriptorSet` of every contract.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/gavel.fds"));
