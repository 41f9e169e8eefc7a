//! Plain HTTP GET routes that answer JSON: for a browser's address bar, a health probe, a shell script.
use crate::{
    Class, Error, Invocation, Io, Result, Runtime,
    db::Share,
    invocation::{CORRELATION_HEADER, TRACEPARENT_HEADER},
    invoke::invoke,
    spec::{Spec, Trigger},
    tx::bounded,
};
use poem::{EndpointExt, Request, Response, Route, endpoint::BoxEndpoint, http::StatusCode};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

/// A read over HTTP, open to anyone.
pub trait IoHandler: Send + Sync + 'static {
    /// Name, path and limits.
    const SPEC: &'static Spec;
    /// The path's parameters, by name.
    type Query: DeserializeOwned + Send + Sync + 'static;
    /// What is answered as JSON.
    type Reply: Serialize + Send + 'static;

    /// Answers.
    fn handle(io: &Io, query: &Self::Query) -> impl Future<Output = Result<Self::Reply>> + Send;
}

/// Adds the handler's route.
pub(crate) fn mount<H: IoHandler>(runtime: &Runtime, route: Route) -> Route {
    let Trigger::Http(path) = H::SPEC.trigger else {
        return route;
    };
    let runtime = runtime.clone();
    let endpoint: BoxEndpoint<'static, Response> = poem::endpoint::make(move |request| {
        let runtime = runtime.clone();
        async move { serve::<H>(&runtime, &request).await }
    })
    .boxed();
    route.at(path, poem::get(endpoint))
}

async fn serve<H: IoHandler>(runtime: &Runtime, request: &Request) -> Response {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let invocation =
        Invocation::continuing(header(CORRELATION_HEADER), header(TRACEPARENT_HEADER), H::SPEC.limits.timeout);
    let correlation_id = invocation.correlation_id.clone();
    let result = call::<H>(runtime, invocation, request).await;
    let (status, body) = match result.and_then(|reply| serde_json::to_value(reply).map_err(Error::internal)) {
        Ok(reply) => (StatusCode::OK, reply),
        Err(error) => {
            let status = StatusCode::from_u16(error.class().http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let code = error.class().name();
            (status, json!({ "code": code, "message": error.message(), "correlation_id": correlation_id }))
        }
    };
    Response::builder()
        .status(status)
        .content_type("application/json")
        .header(CORRELATION_HEADER, correlation_id)
        .body(body.to_string())
}

async fn call<H: IoHandler>(runtime: &Runtime, invocation: Invocation, request: &Request) -> Result<H::Reply> {
    let query = request.path_params::<H::Query>();
    let (inner, run_as) = (runtime.clone(), invocation.clone());
    let run = async move {
        let query = query.map_err(|error| Error::new(Class::Invalid, format!("the path can't be read: {error}")))?;
        let _permit = inner.admit(H::SPEC)?;
        let io = Io::new(&inner, Share::Calls, run_as.clone());
        bounded(run_as.remaining(), H::handle(&io, &query)).await
    };
    invoke(runtime, H::SPEC, invocation, run).await
}
