//! The two servers: the runtime's, with handlers that answer at once, and poem-grpc's own with the same.
use crate::EXPAND;
use anyhow::Context;
use gavel_proto::{
    DESCRIPTORS,
    externalscaler::{
        ExternalScaler, ExternalScalerServer, GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse,
        IsActiveResponse, ScaledObjectRef,
    },
};
use gavel_runtime::{
    App, Io, Result,
    auth::{Access, Caller},
    config::{Backends, Env, ProcessConfig, TokenConfig},
    process, rpc,
    rpc::Sink,
    spec::{Limits, Spec, Trigger},
};
use poem::{
    Server,
    http::uri::Scheme,
    listener::{Acceptor, TcpAcceptor},
    web::{LocalAddr, RemoteAddr},
};
use poem_grpc::{Request, Response, RouteGrpc, Status, Streaming};
use prost::Message;
use std::io;
use tokio::net::{TcpListener, TcpStream};

/// The contracts that the runtime's server needs handlers for.
const CONTRACTS: [&str; 2] = ["external/externalscaler.proto", "external/grpc/health/v1/health.proto"];

/// Runs one of them until it is killed.
pub(crate) async fn serve(which: &str) -> anyhow::Result<()> {
    match which {
        "ours" => ours().await,
        _ => bare().await,
    }
}

async fn ours() -> anyhow::Result<()> {
    let mut set = prost_types::FileDescriptorSet::decode(DESCRIPTORS)?;
    set.file.retain(|file| CONTRACTS.contains(&file.name()));
    let app = App::new("bench", &EXPAND)
        .contracts(Box::leak(set.encode_to_vec().into_boxed_slice()))
        .rpc_io::<Active>()
        .rpc_stream::<ActiveStream>()
        .rpc_io::<MetricSpec>()
        .rpc_stream::<MetricSpecStream>()
        .rpc_io::<Metrics>();
    let mut env = Env::from_process();
    let backends = Backends::from_env(&mut env);
    let config = ProcessConfig::of_service(&mut env);
    let tokens = TokenConfig::from_env(&mut env, &config);
    env.finish()?;
    process::run_service(app, "bench-edge", &backends, &config, &tokens).await
}

macro_rules! reads {
    ($handler:ident, $name:literal, $method:literal, $request:ty, $reply:ty, $answer:expr) => {
        struct $handler;

        impl rpc::IoHandler for $handler {
            const SPEC: &'static Spec =
                &Spec::new($name, Trigger::Rpc(concat!("externalscaler.ExternalScaler/", $method)))
                    .limits(Limits::DEFAULT.concurrency(1_024));
            const ACCESS: Access = Access::Public;
            type Request = $request;
            type Query = ();
            type Reply = $reply;

            fn parse(_: $request, _: Option<&Caller>) -> Result<()> {
                Ok(())
            }

            async fn handle(_: &Io, (): &()) -> Result<$reply> {
                Ok($answer)
            }
        }
    };
}

reads!(Active, "is_active", "IsActive", ScaledObjectRef, IsActiveResponse, IsActiveResponse { result: true });
reads!(
    MetricSpec,
    "get_metric_spec",
    "GetMetricSpec",
    ScaledObjectRef,
    GetMetricSpecResponse,
    GetMetricSpecResponse::default()
);
reads!(Metrics, "get_metrics", "GetMetrics", GetMetricsRequest, GetMetricsResponse, GetMetricsResponse::default());

macro_rules! streams {
    ($handler:ident, $name:literal, $method:literal, $reply:ty, $answer:expr) => {
        struct $handler;

        impl rpc::StreamHandler for $handler {
            const SPEC: &'static Spec =
                &Spec::new($name, Trigger::Rpc(concat!("externalscaler.ExternalScaler/", $method)));
            const ACCESS: Access = Access::Public;
            type Request = ScaledObjectRef;
            type Query = ();
            type Reply = $reply;

            fn parse(_: ScaledObjectRef, _: Option<&Caller>) -> Result<()> {
                Ok(())
            }

            async fn handle(_: &Io, (): &(), out: &Sink<$reply>) -> Result<()> {
                out.send($answer).await
            }
        }
    };
}

streams!(ActiveStream, "stream_is_active", "StreamIsActive", IsActiveResponse, IsActiveResponse { result: true });
streams!(
    MetricSpecStream,
    "stream_metric_spec",
    "StreamMetricSpec",
    GetMetricSpecResponse,
    GetMetricSpecResponse::default()
);

async fn bare() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr().context("no address")?;
    println!("{}", serde_json::json!({ "msg": "ready", "address": address.to_string() }));
    let acceptor = NoDelay(TcpAcceptor::from_tokio(listener)?);
    Ok(Server::new_with_acceptor(acceptor).run(RouteGrpc::new().add_service(ExternalScalerServer::new(Bare))).await?)
}

/// Without it small answers would wait for the client's delayed acknowledgement.
struct NoDelay(TcpAcceptor);

impl Acceptor for NoDelay {
    type Io = TcpStream;

    fn local_addr(&self) -> Vec<LocalAddr> {
        self.0.local_addr()
    }

    async fn accept(&mut self) -> io::Result<(Self::Io, LocalAddr, RemoteAddr, Scheme)> {
        let accepted = self.0.accept().await?;
        accepted.0.set_nodelay(true)?;
        Ok(accepted)
    }
}

struct Bare;

type Answer<T> = std::result::Result<Response<T>, Status>;

impl ExternalScaler for Bare {
    async fn is_active(&self, _: Request<ScaledObjectRef>) -> Answer<IsActiveResponse> {
        Ok(Response::new(IsActiveResponse { result: true }))
    }

    async fn stream_is_active(&self, _: Request<ScaledObjectRef>) -> Answer<Streaming<IsActiveResponse>> {
        Ok(Response::new(Streaming::new(futures_util::stream::iter([Ok(IsActiveResponse { result: true })]))))
    }

    async fn get_metric_spec(&self, _: Request<ScaledObjectRef>) -> Answer<GetMetricSpecResponse> {
        Ok(Response::new(GetMetricSpecResponse::default()))
    }

    async fn stream_metric_spec(&self, _: Request<ScaledObjectRef>) -> Answer<Streaming<GetMetricSpecResponse>> {
        Ok(Response::new(Streaming::new(futures_util::stream::iter([Ok(GetMetricSpecResponse::default())]))))
    }

    async fn get_metrics(&self, _: Request<GetMetricsRequest>) -> Answer<GetMetricsResponse> {
        Ok(Response::new(GetMetricsResponse::default()))
    }
}
