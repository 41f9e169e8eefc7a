//! The contracts, for whoever asks what is offered here: connectrpc's own service, as old clients call it and new ones,
//! in every protocol.
use super::{
    compression,
    endpoint::{into_poem, said_once},
};
use anyhow::Context;
use bytes::Bytes;
use connectrpc::{ConnectRpcService, Router};
use connectrpc_reflection::Reflector;
use http_body_util::combinators::BoxBody;
use poem::{Endpoint, Request, Response, Route, http};
use std::io;
use tower_service::Service;

const PATHS: [&str; 2] = ["/grpc.reflection.v1.ServerReflection", "/grpc.reflection.v1alpha.ServerReflection"];

/// Answers both versions, which differ in nothing but their names.
#[derive(Clone)]
struct Reflection(ConnectRpcService<Router>);

/// Adds it, for an encoded `google.protobuf.FileDescriptorSet`.
pub(super) fn mount(route: Route, descriptors: &[u8]) -> anyhow::Result<Route> {
    let reflector =
        Reflector::from_descriptor_set_bytes(descriptors).context("the contracts' descriptor set can't be read")?;
    let service = ConnectRpcService::new(connectrpc_reflection::install(Router::new(), reflector));
    let service = service.with_compression(compression());
    Ok(PATHS.into_iter().fold(route, |route, path| route.nest_no_strip(path, Reflection(service.clone()))))
}

impl Endpoint for Reflection {
    type Output = Response;

    async fn call(&self, request: Request) -> poem::Result<Response> {
        let request: http::Request<BoxBody<Bytes, io::Error>> = request.into();
        let answer = self.0.clone().call(request).await.unwrap_or_else(|never| match never {});
        Ok(into_poem(said_once(answer, false).await))
    }
}
