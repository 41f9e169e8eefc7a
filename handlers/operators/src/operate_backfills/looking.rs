//! Looking at backfills.
use super::{OPS, shown::shown};
use gavel_proto::v1;
use gavel_runtime::{
    Error, Io, Result,
    auth::{Access, Caller},
    rpc::{self, Sink},
    schema::backfill::ops,
    spec::{Limits, Spec, Trigger},
};
use std::time::Duration;

/// Interval at which a watched backfill is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);

async fn one(io: &Io, change: i64) -> Result<v1::Backfill> {
    let found = ops::list(io.reads()).await?.into_iter().find(|plan| plan.change == change);
    let none = || Error::not_found(format!("no backfill of change {change} was ever started"));
    found.map(|plan| shown(plan, io.now())).ok_or_else(none)
}

/// `OpsService.GetBackfill`.
pub struct GetBackfill;

impl rpc::IoHandler for GetBackfill {
    const SPEC: &'static Spec =
        &Spec::new("get_backfill", Trigger::Rpc("gavel.v1.OpsService/GetBackfill")).for_operators();
    const ACCESS: Access = OPS;
    type Request = v1::GetBackfillRequest;
    type Query = i64;
    type Reply = v1::GetBackfillResponse;

    fn parse(request: v1::GetBackfillRequest, _: Option<&Caller>) -> Result<i64> {
        Ok(request.change)
    }

    async fn handle(io: &Io, change: &i64) -> Result<v1::GetBackfillResponse> {
        Ok(v1::GetBackfillResponse { backfill: Some(one(io, *change).await?) })
    }
}

/// `OpsService.ListBackfills`.
pub struct ListBackfills;

impl rpc::IoHandler for ListBackfills {
    const SPEC: &'static Spec =
        &Spec::new("list_backfills", Trigger::Rpc("gavel.v1.OpsService/ListBackfills")).for_operators();
    const ACCESS: Access = OPS;
    type Request = v1::ListBackfillsRequest;
    type Query = ();
    type Reply = v1::ListBackfillsResponse;

    fn parse(_: v1::ListBackfillsRequest, _: Option<&Caller>) -> Result<()> {
        Ok(())
    }

    async fn handle(io: &Io, (): &()) -> Result<v1::ListBackfillsResponse> {
        let plans = ops::list(io.reads()).await?;
        Ok(v1::ListBackfillsResponse { backfills: plans.into_iter().map(|plan| shown(plan, io.now())).collect() })
    }
}

/// `OpsService.WatchBackfill`.
pub struct WatchBackfill;

impl rpc::StreamHandler for WatchBackfill {
    const SPEC: &'static Spec = &Spec::new("watch_backfill", Trigger::Rpc("gavel.v1.OpsService/WatchBackfill"))
        .for_operators()
        .limits(Limits::DEFAULT.concurrency(64));
    const ACCESS: Access = OPS;
    type Request = v1::WatchBackfillRequest;
    type Query = i64;
    type Reply = v1::WatchBackfillResponse;

    fn parse(request: v1::WatchBackfillRequest, _: Option<&Caller>) -> Result<i64> {
        Ok(request.change)
    }

    async fn handle(io: &Io, change: &i64, out: &Sink<v1::WatchBackfillResponse>) -> Result<()> {
        let mut said = None;
        loop {
            let found = one(io, *change).await?;
            let is_over = matches!(found.state(), v1::BackfillState::Done | v1::BackfillState::Cancelled);
            if said.as_ref() != Some(&found) {
                out.send(v1::WatchBackfillResponse { backfill: Some(found.clone()) }).await?;
                said = Some(found);
            }
            if is_over {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
