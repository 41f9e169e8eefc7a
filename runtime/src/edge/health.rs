//! `grpc.health.v1.Health`: whether this process can be sent work, as a whole and by its dependencies.
use crate::{
    Error, Io, Result, Runtime,
    base::{
        Access, Caller,
        spec::{Spec, Trigger},
    },
    triggers::rpc::{self, Sink},
};
use prost::Name;
use std::time::Duration;

/// Interval at which a watched service is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Request {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Response {
    #[prost(enumeration = "Status", tag = "1")]
    status: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum Status {
    Unknown = 0,
    Serving = 1,
    NotServing = 2,
    ServiceUnknown = 3,
}

impl Name for Request {
    const NAME: &'static str = "HealthCheckRequest";
    const PACKAGE: &'static str = "grpc.health.v1";
}

impl Name for Response {
    const NAME: &'static str = "HealthCheckResponse";
    const PACKAGE: &'static str = "grpc.health.v1";
}

/// None where there is no such service.
fn status_of(runtime: &Runtime, service: &str) -> Option<Status> {
    let serves = |spec: &&Spec| matches!(spec.trigger, Trigger::Rpc(method) if method.split_once('/').is_some_and(|(name, _)| name == service));
    let Some(readiness) = runtime.health().readiness() else { return Some(Status::NotServing) };
    let readiness = readiness.unless_draining(runtime.tasks());
    let up = match service {
        "postgresql" => readiness.database.up && readiness.schema.up,
        "rabbitmq" => readiness.broker.up,
        "redis" => readiness.cache.up,
        "" => readiness.ready,
        _ if runtime.specs().iter().any(serves) => readiness.ready,
        _ => return None,
    };
    Some(if up { Status::Serving } else { Status::NotServing })
}

/// `Health.Check`.
pub(crate) struct Check;

impl rpc::IoHandler for Check {
    const SPEC: &'static Spec = &Spec::new("check_health", Trigger::Rpc("grpc.health.v1.Health/Check"));
    const ACCESS: Access = Access::Public;
    type Request = Request;
    type Query = String;
    type Reply = Response;

    fn parse(request: Request, _: Option<&Caller>) -> Result<String> {
        Ok(request.service)
    }

    async fn handle(io: &Io, service: &String) -> Result<Response> {
        let unknown = || Error::not_found(format!("there is no service {service:?}"));
        let status = status_of(io.runtime(), service).ok_or_else(unknown)?;
        Ok(Response { status: status.into() })
    }
}

/// `Health.Watch`.
pub(crate) struct Watch;

impl rpc::StreamHandler for Watch {
    const SPEC: &'static Spec = &Spec::new("watch_health", Trigger::Rpc("grpc.health.v1.Health/Watch"));
    const ACCESS: Access = Access::Public;
    type Request = Request;
    type Query = String;
    type Reply = Response;

    fn parse(request: Request, _: Option<&Caller>) -> Result<String> {
        Ok(request.service)
    }

    async fn handle(io: &Io, service: &String, out: &Sink<Response>) -> Result<()> {
        let mut last = None;
        loop {
            let status = status_of(io.runtime(), service).unwrap_or(Status::ServiceUnknown);
            if last != Some(status) {
                out.send(Response { status: status.into() }).await?;
                last = Some(status);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
