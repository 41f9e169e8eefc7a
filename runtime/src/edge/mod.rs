//! The front of a service: on one port, over HTTP/1.1 and HTTP/2 without TLS, each method speaks gRPC, gRPC-Web and
//! Connect, in protobuf and JSON. Handlers see none of it: they are called with messages.
//!
//! The protocols are [`connectrpc`]'s: framing, compression, time-outs, limits, the shapes of errors. Here is what
//! leads from its dispatcher to the registered handlers ([`dispatch`]), and from poem's requests to it ([`endpoint`]).
//! Reflection is connectrpc's own ([`reflection`]); health is two handlers of our own ([`health`]).

mod body;
mod budget;
mod contract;
mod dispatch;
mod endpoint;
mod errors;
pub(crate) mod health;
mod json;
mod reflection;
mod refusal;

pub(crate) use body::Source;
pub(crate) use budget::BodyLimits;
pub(crate) use contract::{Contract, Contracts};
pub(crate) use dispatch::{Dispatch, Method};
pub(crate) use endpoint::Edge;
pub(crate) use errors::correlation_header;

use connectrpc::{CompressionRegistry, ConnectRpcService, DeadlinePolicy, GzipProvider, Limits};
use poem::Route;
use std::time::Duration;

/// What an envelope has before its message, in bytes: it does not count against the message.
const ENVELOPE_BYTES: usize = 5;

/// A call whose client names no time-out is given up after this, its request's arrival included. Handlers have their
/// own, shorter ones.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest time-out that a client may name: one that wants a stream for longer asks again.
const MAX_TIMEOUT: Duration = Duration::from_hours(24);

/// Returns what both sides may know. Another that the library knows as well unpacks into windows of many MiB, which
/// anybody could ask for.
fn compression() -> CompressionRegistry {
    CompressionRegistry::new().register(GzipProvider::default())
}

/// Adds all methods, and reflection over their contracts where that is wanted. Gives the methods alone as well. Fails
/// where the contracts can't be read.
pub(crate) fn mount(
    route: Route,
    dispatch: Dispatch,
    bodies: BodyLimits,
    reflected: Option<&'static [u8]>,
) -> anyhow::Result<(Route, Edge)> {
    // Each method's own limit is looked at once its message is there.
    let largest = dispatch.largest_request();
    let limits = Limits::default().with_max_request_body_size(largest + ENVELOPE_BYTES).with_max_message_size(largest);
    let service = ConnectRpcService::new(dispatch)
        .with_limits(limits)
        .with_compression(compression())
        .with_deadline_policy(DeadlinePolicy::new().with_default_timeout(DEFAULT_TIMEOUT).with_max(MAX_TIMEOUT));
    let edge = Edge::new(service, bodies);
    let route = match reflected {
        None => route,
        Some(descriptors) => reflection::mount(route, descriptors)?,
    };
    Ok((route.nest_no_strip("/", edge.clone()), edge))
}
