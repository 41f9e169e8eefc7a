//! Everything the application does, for operators.
use gavel_proto::v1;
use gavel_runtime::{
    Io, Result,
    auth::{Access, Caller},
    rpc,
    spec::{Spec, Trigger},
};

/// `OpsService.ListHandlers`.
pub struct ListHandlers;

impl rpc::IoHandler for ListHandlers {
    const SPEC: &'static Spec =
        &Spec::new("list_handlers", Trigger::Rpc("gavel.v1.OpsService/ListHandlers")).for_operators();
    const ACCESS: Access = Access::Roles(&["ops"]);
    type Request = v1::ListHandlersRequest;
    type Query = ();
    type Reply = v1::ListHandlersResponse;

    fn parse(_: v1::ListHandlersRequest, _: Option<&Caller>) -> Result<()> {
        Ok(())
    }

    async fn handle(io: &Io, (): &()) -> Result<v1::ListHandlersResponse> {
        Ok(v1::ListHandlersResponse { handlers: io.handlers().iter().map(|spec| shown(spec)).collect() })
    }
}

fn shown(spec: &Spec) -> v1::Handler {
    let (trigger, text) = (spec.trigger.kind(), spec.to_string());
    let on = text.strip_prefix(trigger).unwrap_or(&text).trim();
    v1::Handler {
        name: spec.name.to_owned(),
        trigger: trigger.to_owned(),
        on: on.to_owned(),
        concurrency: i32::try_from(spec.limits.concurrency).unwrap_or(i32::MAX),
        retries: i32::try_from(spec.limits.retries).unwrap_or(i32::MAX),
        timeout_ms: i64::try_from(spec.limits.timeout.as_millis()).unwrap_or(i64::MAX),
    }
}
