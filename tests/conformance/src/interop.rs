//! gRPC's test service, as its interop clients call it.
use crate::messages::testing::{
    Empty, Payload, SimpleRequest, SimpleResponse, StreamingOutputCallRequest, StreamingOutputCallResponse,
};
use gavel_runtime::{
    Error, Io, Result,
    auth::{Access, Caller},
    rpc::{self, Sink},
    spec::{Limits, Spec, Trigger},
};
use std::time::Duration;

/// Streams of requests, and what is left out on purpose.
pub const NOT_OFFERED: [&str; 3] = [
    "grpc.testing.TestService/StreamingInputCall",
    "grpc.testing.TestService/FullDuplexCall",
    "grpc.testing.TestService/UnimplementedCall",
];
/// The largest request of the cases has 271 828 bytes and what is around them.
const MAX_REQUEST: usize = 512 * 1_024;

const fn spec(name: &'static str, method: &'static str) -> Spec {
    Spec::new(name, Trigger::Rpc(method)).limits(Limits::DEFAULT.concurrency(1_024)).max_request(MAX_REQUEST)
}

fn payload(size: i32) -> Option<Payload> {
    Some(Payload { body: vec![0; usize::try_from(size).unwrap_or_default()], ..Payload::default() })
}

pub struct EmptyCall;

impl rpc::IoHandler for EmptyCall {
    const SPEC: &'static Spec = &spec("empty_call", "grpc.testing.TestService/EmptyCall");
    const ACCESS: Access = Access::Public;
    type Request = Empty;
    type Query = ();
    type Reply = Empty;

    fn parse(_: Empty, _: Option<&Caller>) -> Result<()> {
        Ok(())
    }

    async fn handle(_: &Io, (): &()) -> Result<Empty> {
        Ok(Empty {})
    }
}

pub struct UnaryCall;

impl rpc::IoHandler for UnaryCall {
    const SPEC: &'static Spec = &spec("unary_call", "grpc.testing.TestService/UnaryCall");
    const ACCESS: Access = Access::Public;
    type Request = SimpleRequest;
    type Query = SimpleRequest;
    type Reply = SimpleResponse;

    fn parse(request: SimpleRequest, _: Option<&Caller>) -> Result<SimpleRequest> {
        Ok(request)
    }

    async fn handle(_: &Io, request: &SimpleRequest) -> Result<SimpleResponse> {
        match &request.response_status {
            Some(wanted) if wanted.code != 0 => {
                Err(Error::new(crate::handlers::class(wanted.code), wanted.message.clone()).shown())
            }
            _ => Ok(SimpleResponse { payload: payload(request.response_size), server_id: "conformance".to_owned() }),
        }
    }
}

pub struct StreamingOutputCall;

impl rpc::StreamHandler for StreamingOutputCall {
    const SPEC: &'static Spec = &spec("streaming_output_call", "grpc.testing.TestService/StreamingOutputCall");
    const ACCESS: Access = Access::Public;
    type Request = StreamingOutputCallRequest;
    type Query = StreamingOutputCallRequest;
    type Reply = StreamingOutputCallResponse;

    fn parse(request: StreamingOutputCallRequest, _: Option<&Caller>) -> Result<StreamingOutputCallRequest> {
        Ok(request)
    }

    async fn handle(
        _: &Io,
        request: &StreamingOutputCallRequest,
        out: &Sink<StreamingOutputCallResponse>,
    ) -> Result<()> {
        for wanted in &request.response_parameters {
            tokio::time::sleep(Duration::from_micros(u64::try_from(wanted.interval_us).unwrap_or_default())).await;
            out.send(StreamingOutputCallResponse { payload: payload(wanted.size) }).await?;
        }
        Ok(())
    }
}
