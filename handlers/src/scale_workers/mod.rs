//! What KEDA asks to decide how many workers there should be: of one queue, the runs at the same time that drain it within
//! a target. Replicas are that divided by what one worker runs at once.
//!
//! KEDA sends no token, so these calls are public inside the cluster; the gateway does not lead to them. What can't be
//! answered is an error, upon which KEDA changes nothing: never a zero.
use gavel_proto::externalscaler as keda;
use gavel_runtime::{
    Error, Io, Result,
    auth::{Access, Caller},
    job::{self, DRAIN_WITHIN},
    rpc::{self, Sink},
    spec::{Spec, Trigger},
};
use std::{collections::HashMap, time::Duration};

/// How often a stream looks at its queue.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The longest target.
const MAX_TARGET_S: u64 = 86_400;
/// The most runs of one replica.
const MAX_CONCURRENCY: u64 = 1_000_000;

/// A queue, and how it is to be scaled.
pub struct Target {
    kind: String,
    within: Duration,
    concurrency: Option<u64>,
}

impl Target {
    fn of(object: Option<keda::ScaledObjectRef>) -> Result<Self> {
        let metadata = object.map(|object| object.scaler_metadata).unwrap_or_default();
        let kind = metadata.get("queue").filter(|kind| !kind.is_empty()).cloned().ok_or_else(|| {
            Error::invalid("the trigger's metadata has no queue; allowed: queue: the name of a job handler")
        })?;
        let within_s = number(&metadata, "targetSeconds", MAX_TARGET_S)?.unwrap_or(DRAIN_WITHIN.as_secs());
        let concurrency = number(&metadata, "concurrency", MAX_CONCURRENCY)?;
        Ok(Self { kind, within: Duration::from_secs(within_s), concurrency })
    }

    fn metric(&self) -> String {
        format!("gavel-{}-needed-concurrency", self.kind.replace('_', "-"))
    }

    async fn is_active(&self, io: &Io) -> Result<bool> {
        let depth = job::depth(io, &self.kind).await?;
        Ok(depth.needed(self.within) > 0)
    }
}

fn number(metadata: &HashMap<String, String>, name: &str, most: u64) -> Result<Option<u64>> {
    let Some(text) = metadata.get(name) else { return Ok(None) };
    let parsed = text.parse().ok().filter(|number| (1..=most).contains(number));
    parsed.map(Some).ok_or_else(|| Error::invalid(format!("{name} {text:?} is out of range; allowed: 1 to {most}")))
}

/// A JSON number's worth of an integer.
fn float(number: i64) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

/// `ExternalScaler.IsActive`.
pub struct IsActive;

impl rpc::IoHandler for IsActive {
    const SPEC: &'static Spec = &Spec::new("is_active", Trigger::Rpc("externalscaler.ExternalScaler/IsActive"));
    const ACCESS: Access = Access::Public;
    type Request = keda::ScaledObjectRef;
    type Query = Target;
    type Reply = keda::IsActiveResponse;

    fn parse(request: keda::ScaledObjectRef, _: Option<&Caller>) -> Result<Target> {
        Target::of(Some(request))
    }

    async fn handle(io: &Io, target: &Target) -> Result<keda::IsActiveResponse> {
        Ok(keda::IsActiveResponse { result: target.is_active(io).await? })
    }
}

/// `ExternalScaler.StreamIsActive`.
pub struct StreamIsActive;

impl rpc::StreamHandler for StreamIsActive {
    const SPEC: &'static Spec =
        &Spec::new("stream_is_active", Trigger::Rpc("externalscaler.ExternalScaler/StreamIsActive"));
    const ACCESS: Access = Access::Public;
    type Request = keda::ScaledObjectRef;
    type Query = Target;
    type Reply = keda::IsActiveResponse;

    fn parse(request: keda::ScaledObjectRef, _: Option<&Caller>) -> Result<Target> {
        Target::of(Some(request))
    }

    /// Says at once what is, then each change.
    async fn handle(io: &Io, target: &Target, out: &Sink<keda::IsActiveResponse>) -> Result<()> {
        let mut said = None;
        loop {
            let active = target.is_active(io).await?;
            if said != Some(active) {
                out.send(keda::IsActiveResponse { result: active }).await?;
                said = Some(active);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// `ExternalScaler.GetMetricSpec`.
pub struct GetMetricSpec;

impl rpc::IoHandler for GetMetricSpec {
    const SPEC: &'static Spec =
        &Spec::new("get_metric_spec", Trigger::Rpc("externalscaler.ExternalScaler/GetMetricSpec"));
    const ACCESS: Access = Access::Public;
    type Request = keda::ScaledObjectRef;
    type Query = Target;
    type Reply = keda::GetMetricSpecResponse;

    fn parse(request: keda::ScaledObjectRef, _: Option<&Caller>) -> Result<Target> {
        Target::of(Some(request))
    }

    async fn handle(io: &Io, target: &Target) -> Result<keda::GetMetricSpecResponse> {
        job::depth(io, &target.kind).await?;
        let handler = io.handlers().iter().find(|spec| spec.name == target.kind);
        let own = handler.map_or(1, |spec| spec.limits.concurrency as u64);
        let size = i64::try_from(target.concurrency.unwrap_or(own)).unwrap_or(i64::MAX);
        let spec = keda::MetricSpec { metric_name: target.metric(), target_size: size, target_size_float: float(size) };
        Ok(keda::GetMetricSpecResponse { metric_specs: vec![spec] })
    }
}

/// `ExternalScaler.GetMetrics`.
pub struct GetMetrics;

impl rpc::IoHandler for GetMetrics {
    const SPEC: &'static Spec = &Spec::new("get_metrics", Trigger::Rpc("externalscaler.ExternalScaler/GetMetrics"));
    const ACCESS: Access = Access::Public;
    type Request = keda::GetMetricsRequest;
    type Query = Target;
    type Reply = keda::GetMetricsResponse;

    fn parse(request: keda::GetMetricsRequest, _: Option<&Caller>) -> Result<Target> {
        let target = Target::of(request.scaled_object_ref)?;
        if !request.metric_name.is_empty() && request.metric_name != target.metric() {
            let message = format!("there is no metric {:?}; allowed: {}", request.metric_name, target.metric());
            return Err(Error::not_found(message));
        }
        Ok(target)
    }

    async fn handle(io: &Io, target: &Target) -> Result<keda::GetMetricsResponse> {
        let needed = job::depth(io, &target.kind).await?.needed(target.within);
        let value =
            keda::MetricValue { metric_name: target.metric(), metric_value: needed, metric_value_float: float(needed) };
        Ok(keda::GetMetricsResponse { metric_values: vec![value] })
    }
}
