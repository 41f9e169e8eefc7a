//! What KEDA asks to decide how many workers there should be: of one queue, the runs at the same time that drain it
//! within a target. Replicas are that divided by what one worker runs at once.
//!
//! KEDA sends no token: these calls are open to anybody who reaches the operators' listener, to which no gateway leads.
//! What can't be answered is an error, upon which KEDA changes nothing: never a zero.
use gavel_proto::externalscaler as keda;
use gavel_runtime::{
    Error, Io, Result,
    auth::{Access, Caller},
    job::{self, DRAIN_WITHIN},
    rpc::{self, Sink},
    spec::{Spec, Trigger},
};
use std::{
    collections::HashMap,
    future::pending,
    time::{Duration, Instant},
};

/// Interval at which a stream looks at its queue.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Interval at which it says again that there is something to do.
const SAY_AGAIN_EVERY: Duration = Duration::from_secs(5);
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

    /// As KEDA sees it, the queue's figures never come from nothing: what can't be known is an error.
    async fn is_active(&self, io: &Io) -> Result<bool> {
        let depth = job::depth(io, &self.kind).await?;
        Ok(depth.needed(self.within) > 0)
    }

    /// It follows from the trigger and from the handler alone. KEDA asks when it starts, also while the database is
    /// down, and does not ask again for minutes where there is no answer.
    fn spec(&self, io: &Io) -> Result<keda::GetMetricSpecResponse> {
        let is_queue = |spec: &&&Spec| matches!(spec.trigger, Trigger::Job(_));
        let queues = || io.handlers().iter().filter(is_queue);
        let unknown = || {
            let names: Vec<_> = queues().map(|spec| spec.name).collect();
            Error::not_found(format!("no queue is called {:?}; allowed: {}", self.kind, names.join(", ")))
        };
        let handler = queues().find(|spec| spec.name == self.kind).ok_or_else(unknown)?;
        let own = handler.limits.concurrency as u64;
        let size = i64::try_from(self.concurrency.unwrap_or(own)).unwrap_or(i64::MAX);
        let spec = keda::MetricSpec { metric_name: self.metric(), target_size: size, target_size_float: float(size) };
        Ok(keda::GetMetricSpecResponse { metric_specs: vec![spec] })
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
    const SPEC: &'static Spec =
        &Spec::new("is_active", Trigger::Rpc("externalscaler.ExternalScaler/IsActive")).for_operators();
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
        &Spec::new("stream_is_active", Trigger::Rpc("externalscaler.ExternalScaler/StreamIsActive")).for_operators();
    const ACCESS: Access = Access::Public;
    const ENDS_WELL_IN_A_DRAIN: bool = true;
    type Request = keda::ScaledObjectRef;
    type Query = Target;
    type Reply = keda::IsActiveResponse;

    fn parse(request: keda::ScaledObjectRef, _: Option<&Caller>) -> Result<Target> {
        Target::of(Some(request))
    }

    /// Says at once what is, then each change, and again and again that there is something to do: whoever lost it once
    /// would not look for half a minute. A look that fails after the first ends nothing.
    async fn handle(io: &Io, target: &Target, out: &Sink<keda::IsActiveResponse>) -> Result<()> {
        let mut active = target.is_active(io).await?;
        loop {
            out.send(keda::IsActiveResponse { result: active }).await?;
            let said_at = Instant::now();
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                let found = match target.is_active(io).await {
                    Ok(found) => found,
                    Err(error) => {
                        tracing::debug!(%error, queue = target.kind, "KEDA is told nothing for the moment");
                        continue;
                    }
                };
                if found != active || (found && said_at.elapsed() > SAY_AGAIN_EVERY) {
                    active = found;
                    break;
                }
            }
        }
    }
}

/// `ExternalScaler.GetMetricSpec`.
pub struct GetMetricSpec;

impl rpc::IoHandler for GetMetricSpec {
    const SPEC: &'static Spec =
        &Spec::new("get_metric_spec", Trigger::Rpc("externalscaler.ExternalScaler/GetMetricSpec")).for_operators();
    const ACCESS: Access = Access::Public;
    type Request = keda::ScaledObjectRef;
    type Query = Target;
    type Reply = keda::GetMetricSpecResponse;

    fn parse(request: keda::ScaledObjectRef, _: Option<&Caller>) -> Result<Target> {
        Target::of(Some(request))
    }

    async fn handle(io: &Io, target: &Target) -> Result<keda::GetMetricSpecResponse> {
        target.spec(io)
    }
}

/// `ExternalScaler.StreamMetricSpec`.
pub struct StreamMetricSpec;

impl rpc::StreamHandler for StreamMetricSpec {
    const SPEC: &'static Spec =
        &Spec::new("stream_metric_spec", Trigger::Rpc("externalscaler.ExternalScaler/StreamMetricSpec"))
            .for_operators();
    const ACCESS: Access = Access::Public;
    const ENDS_WELL_IN_A_DRAIN: bool = true;
    type Request = keda::ScaledObjectRef;
    type Query = Target;
    type Reply = keda::GetMetricSpecResponse;

    fn parse(request: keda::ScaledObjectRef, _: Option<&Caller>) -> Result<Target> {
        Target::of(Some(request))
    }

    /// It does not change as long as this process lives.
    async fn handle(io: &Io, target: &Target, out: &Sink<keda::GetMetricSpecResponse>) -> Result<()> {
        out.send(target.spec(io)?).await?;
        pending().await
    }
}

/// `ExternalScaler.GetMetrics`.
pub struct GetMetrics;

impl rpc::IoHandler for GetMetrics {
    const SPEC: &'static Spec =
        &Spec::new("get_metrics", Trigger::Rpc("externalscaler.ExternalScaler/GetMetrics")).for_operators();
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
