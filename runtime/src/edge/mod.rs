//! The front of a service: on one port, over HTTP/1.1 and HTTP/2 without TLS, each method speaks gRPC, gRPC-Web and Connect, in
//! protobuf and JSON. Handlers see none of it: they are called with messages.
//!
//! The protocols are [`connectrpc`]'s: framing, compression, time-outs, limits, the shapes of errors. Here is what leads from
//! its dispatcher to the registered handlers ([`dispatch`]), and from poem's requests to it ([`endpoint`]). Reflection is
//! poem-grpc's; health is two handlers of our own ([`health`]).

mod budget;
mod contract;
mod dispatch;
mod endpoint;
mod errors;
pub(crate) mod health;
mod json;
mod reading;
mod refusal;

pub(crate) use budget::BodyLimits;
pub(crate) use contract::{Contract, Contracts};
pub(crate) use dispatch::{Dispatch, Method};
pub(crate) use endpoint::Edge;
pub(crate) use errors::correlation_header;
pub(crate) use reading::Source;

use connectrpc::{ConnectRpcService, DeadlinePolicy, Limits};
use poem::{IntoEndpoint, Route};
use poem_grpc::{Reflection, RouteGrpc};
use std::time::Duration;

/// The largest request, in bytes, before and after decompression. Every request of this API is far smaller.
const MAX_REQUEST_BYTES: usize = 64 * 1_024;

/// A call whose client names no time-out is given up after this, its request's arrival included. Handlers have their own,
/// shorter ones.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest time-out that a client may name: one that wants a stream for longer asks again.
const MAX_TIMEOUT: Duration = Duration::from_hours(24);

const REFLECTION: &str = "/grpc.reflection.v1alpha.ServerReflection";

/// Adds all methods, and reflection over their contracts where that is wanted. Gives the methods alone as well.
pub(crate) fn mount(
    route: Route,
    dispatch: Dispatch,
    bodies: BodyLimits,
    reflected: Option<&'static [u8]>,
) -> (Route, Edge) {
    let limits =
        Limits::default().with_max_request_body_size(MAX_REQUEST_BYTES).with_max_message_size(MAX_REQUEST_BYTES);
    let service = ConnectRpcService::new(dispatch)
        .with_limits(limits)
        .with_deadline_policy(DeadlinePolicy::new().with_default_timeout(DEFAULT_TIMEOUT).with_max(MAX_TIMEOUT));
    let edge = Edge::new(service, bodies);
    let route = match reflected {
        None => route,
        Some(descriptors) => {
            let reflection = Reflection::new().add_file_descriptor_set(descriptors).build();
            route.nest_no_strip(REFLECTION, RouteGrpc::new().add_service(reflection).into_endpoint())
        }
    };
    (route.nest_no_strip("/", edge.clone()), edge)
}
