//! Plain HTTP GET routes that answer JSON: for a browser's address bar, a health probe, a shell script.
use crate::{
    Error, Invocation, Io, Result, Runtime,
    base::{
        client::ClientNetwork,
        invocation::{CORRELATION_HEADER, TRACEPARENT_HEADER},
        spec::{PoolKind, Spec, Trigger},
    },
    context::invoke,
    postgres::tx::bounded,
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
    /// All that is answered as JSON.
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
    let invocation = Invocation::continuing(
        H::SPEC.name,
        header(CORRELATION_HEADER),
        header(TRACEPARENT_HEADER),
        H::SPEC.limits.timeout,
    );
    let correlation_id = invocation.correlation_id.clone();
    let client = request.data::<ClientNetwork>().copied().unwrap_or(ClientNetwork::NONE);
    let query = request.path_params::<H::Query>().map_err(|_| Error::invalid(misspelled(H::SPEC.trigger, request)));
    // Once begun it comes to its end: its statement would be left in the middle.
    let call = Box::pin(call::<H>(runtime.clone(), invocation, client, query));
    let result = runtime.tasks().enduring(call).await;
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

/// Names what stands in the path.
fn misspelled(trigger: Trigger, request: &Request) -> String {
    let Trigger::Http(path) = trigger else { return String::new() };
    let names = path.split('/').filter_map(|part| part.strip_prefix(':'));
    let given = names.map(|name| format!("{name} {:?}", request.raw_path_param(name).unwrap_or_default()));
    format!("{} can't be read; allowed: {path}", given.collect::<Vec<_>>().join(", "))
}

async fn call<H: IoHandler>(
    runtime: Runtime,
    invocation: Invocation,
    client: ClientNetwork,
    query: Result<H::Query>,
) -> Result<H::Reply> {
    let admitted = runtime.admission().admit_read(H::SPEC, None, client);
    let _permit = admitted.map_err(|error| invoke::rejected(&runtime, H::SPEC, &invocation, error))?;
    let io = Io::new(&runtime, PoolKind::Calls, invocation);
    let run = async {
        let query = query?;
        if let Some(standby) = io.at_standby(H::SPEC)
            && let Some(reply) = standby.heard(H::handle(&standby, &query)).await
        {
            return Ok(reply);
        }
        bounded(io.invocation().remaining(), H::handle(&io, &query)).await
    };
    invoke::read(&runtime, H::SPEC, io.invocation(), run).await
}
