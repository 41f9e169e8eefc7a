//! The service's methods: each answers what its request says.
use crate::messages::{
    any,
    pb::{
        self, ConformancePayload, Header, conformance_payload::RequestInfo,
        unary_response_definition::Response as Wanted,
    },
    seen,
};
use gavel_runtime::{
    Class, Error, Io, Result,
    auth::{Access, Caller},
    call::Call,
    rpc::{self, Sink},
    spec::{Limits, Spec, Trigger},
};
use std::time::Duration;

/// Streams of requests: the edge does not offer them.
pub const NOT_OFFERED: [&str; 2] = [
    "connectrpc.conformance.v1.ConformanceService/ClientStream",
    "connectrpc.conformance.v1.ConformanceService/BidiStream",
];
const LIMITS: Limits = Limits::DEFAULT.timeout(Duration::from_secs(25)).concurrency(1_024);
/// What the runner asks for.
const MAX_REQUEST: usize = 200 * 1_024;

const fn spec(name: &'static str, method: &'static str) -> Spec {
    Spec::new(name, Trigger::Rpc(method)).limits(LIMITS).max_request(MAX_REQUEST).with_call()
}

fn call(io: &Io) -> Result<&Call> {
    io.call().ok_or_else(|| Error::internal(std::io::Error::other("the spec asks for the call")))
}

fn say(call: &Call, headers: &[Header], trailers: &[Header]) -> Result<()> {
    for Header { name, value } in headers {
        value.iter().try_for_each(|value| call.add_header(name, value))?;
    }
    for Header { name, value } in trailers {
        value.iter().try_for_each(|value| call.add_trailer(name, value))?;
    }
    Ok(())
}

async fn pause(ms: u32) {
    if ms > 0 {
        tokio::time::sleep(Duration::from_millis(ms.into())).await;
    }
}

pub fn class(code: i32) -> Class {
    match code {
        1 => Class::Cancelled,
        3 => Class::Invalid,
        4 => Class::DeadlineExceeded,
        5 => Class::NotFound,
        6 => Class::Conflict,
        7 => Class::Denied,
        8 => Class::Exhausted,
        9 => Class::Refused,
        10 => Class::Aborted,
        11 => Class::OutOfRange,
        12 => Class::Unimplemented,
        13 => Class::Internal,
        14 => Class::Unavailable,
        15 => Class::DataLoss,
        16 => Class::Unauthenticated,
        _ => Class::Unknown,
    }
}

fn error(wanted: &pb::Error, info: Option<&RequestInfo>) -> Error {
    let details = wanted.details.iter().cloned().chain(info.map(any));
    Error::new(class(wanted.code), wanted.message().to_owned()).with_details(details).shown()
}

macro_rules! unary {
    ($handler:ident, $name:literal, $method:literal, $request:ident, $reply:ident) => {
        pub struct $handler;

        impl rpc::IoHandler for $handler {
            const SPEC: &'static Spec = &spec($name, concat!("connectrpc.conformance.v1.ConformanceService/", $method));
            const ACCESS: Access = Access::Public;
            type Request = pb::$request;
            type Query = pb::$request;
            type Reply = pb::$reply;

            fn parse(request: pb::$request, _: Option<&Caller>) -> Result<pb::$request> {
                Ok(request)
            }

            async fn handle(io: &Io, request: &pb::$request) -> Result<pb::$reply> {
                let call = call(io)?;
                let info = seen(call, request);
                let definition = request.response_definition.clone().unwrap_or_default();
                say(call, &definition.response_headers, &definition.response_trailers)?;
                pause(definition.response_delay_ms).await;
                let data = match definition.response {
                    Some(Wanted::Error(wanted)) => return Err(error(&wanted, Some(&info))),
                    Some(Wanted::ResponseData(data)) => data,
                    None => Vec::new(),
                };
                Ok(pb::$reply { payload: Some(ConformancePayload { data, request_info: Some(info) }) })
            }
        }
    };
}

unary!(Unary, "unary", "Unary", UnaryRequest, UnaryResponse);
unary!(IdempotentUnary, "idempotent_unary", "IdempotentUnary", IdempotentUnaryRequest, IdempotentUnaryResponse);

/// A method that is there and does nothing.
pub struct Unimplemented;

impl rpc::IoHandler for Unimplemented {
    const SPEC: &'static Spec = &spec("unimplemented", "connectrpc.conformance.v1.ConformanceService/Unimplemented");
    const ACCESS: Access = Access::Public;
    type Request = pb::UnimplementedRequest;
    type Query = ();
    type Reply = pb::UnimplementedResponse;

    fn parse(_: pb::UnimplementedRequest, _: Option<&Caller>) -> Result<()> {
        Ok(())
    }

    async fn handle(_: &Io, (): &()) -> Result<pb::UnimplementedResponse> {
        Err(Error::new(Class::Unimplemented, "this does nothing"))
    }
}

pub struct ServerStream;

impl rpc::StreamHandler for ServerStream {
    const SPEC: &'static Spec = &spec("server_stream", "connectrpc.conformance.v1.ConformanceService/ServerStream");
    const ACCESS: Access = Access::Public;
    type Request = pb::ServerStreamRequest;
    type Query = pb::ServerStreamRequest;
    type Reply = pb::ServerStreamResponse;

    fn parse(request: pb::ServerStreamRequest, _: Option<&Caller>) -> Result<pb::ServerStreamRequest> {
        Ok(request)
    }

    async fn handle(io: &Io, request: &pb::ServerStreamRequest, out: &Sink<pb::ServerStreamResponse>) -> Result<()> {
        let call = call(io)?;
        let mut info = Some(seen(call, request));
        let definition = request.response_definition.clone().unwrap_or_default();
        say(call, &definition.response_headers, &definition.response_trailers)?;
        for data in &definition.response_data {
            pause(definition.response_delay_ms).await;
            let payload = ConformancePayload { data: data.clone(), request_info: info.take() };
            out.send(pb::ServerStreamResponse { payload: Some(payload) }).await?;
        }
        match &definition.error {
            Some(wanted) => Err(error(wanted, info.as_ref())),
            None => Ok(()),
        }
    }
}
