//! Single jobs.
use super::OPS;
use crate::{
    audit::{self, Action, Asked},
    shown::shown_job,
};
use gavel_proto::v1;
use gavel_runtime::{
    Class, Error, Io, Result, Tx,
    auth::{Access, Caller},
    job::{
        inspect,
        ops::{self, Cancelled},
    },
    rpc,
    spec::{Spec, Trigger},
    wire::{at_most, uuid},
};
use serde_json::json;
use uuid::Uuid;

/// `OpsService.ListJobs`.
pub struct ListJobs;

/// A kind, and how many of its jobs.
pub struct Head {
    kind: String,
    limit: i64,
}

impl rpc::IoHandler for ListJobs {
    const SPEC: &'static Spec = &Spec::new("list_jobs", Trigger::Rpc("gavel.v1.OpsService/ListJobs")).for_operators();
    const ACCESS: Access = OPS;
    type Request = v1::ListJobsRequest;
    type Query = Head;
    type Reply = v1::ListJobsResponse;

    fn parse(request: v1::ListJobsRequest, _: Option<&Caller>) -> Result<Head> {
        Ok(Head { kind: request.kind, limit: at_most("limit", request.limit)? })
    }

    async fn handle(io: &Io, head: &Head) -> Result<v1::ListJobsResponse> {
        let jobs = inspect::queued(io.reads(), &head.kind, head.limit).await?;
        Ok(v1::ListJobsResponse { jobs: jobs.into_iter().map(|job| shown_job(job, false)).collect() })
    }
}

/// `OpsService.GetJob`.
pub struct GetJob;

impl rpc::IoHandler for GetJob {
    const SPEC: &'static Spec = &Spec::new("get_job", Trigger::Rpc("gavel.v1.OpsService/GetJob")).for_operators();
    const ACCESS: Access = OPS;
    type Request = v1::GetJobRequest;
    type Query = Uuid;
    type Reply = v1::GetJobResponse;

    fn parse(request: v1::GetJobRequest, _: Option<&Caller>) -> Result<Uuid> {
        uuid("job_id", &request.job_id)
    }

    async fn handle(io: &Io, job_id: &Uuid) -> Result<v1::GetJobResponse> {
        let job = inspect::job(io.reads(), *job_id).await?.ok_or_else(|| no_job(*job_id))?;
        let handler = io.handlers().iter().find(|spec| spec.name == job.kind);
        let consequence = handler.map_or("", |spec| spec.consequence).to_owned();
        Ok(v1::GetJobResponse { job: Some(shown_job(job, true)), consequence })
    }
}

fn no_job(job_id: Uuid) -> Error {
    Error::not_found(format!("there is no job {job_id}: it is done, or never was"))
}

/// `OpsService.CancelJob`.
pub struct CancelJob;

impl rpc::TxHandler for CancelJob {
    const SPEC: &'static Spec = &Spec::new("cancel_job", Trigger::Rpc("gavel.v1.OpsService/CancelJob")).for_operators();
    const ACCESS: Access = OPS;
    type Request = v1::CancelJobRequest;
    type Command = Asked<Uuid>;
    type Reply = v1::CancelJobResponse;

    fn idempotency_key(request: &v1::CancelJobRequest) -> &str {
        &request.idempotency_key
    }

    fn parse(request: v1::CancelJobRequest, caller: &Caller) -> Result<Asked<Uuid>> {
        let action = Action::perhaps_with(&request.reason, &caller.subject)?;
        Ok(Asked { what: uuid("job_id", &request.job_id)?, action })
    }

    async fn handle(tx: &mut Tx, Asked { what: job_id, action }: &Asked<Uuid>) -> Result<v1::CancelJobResponse> {
        let cancelled = ops::cancel(tx.conn(), *job_id, &action.by).await?;
        let details = json!({ "was_running": matches!(cancelled, Cancelled::Asked) });
        audit::record(tx, action, "cancel_job", &job_id.to_string(), &details).await?;
        tracing::info!(%job_id, by = action.by, reason = action.reason, ?cancelled, "cancellation");
        match cancelled {
            Cancelled::DeadLettered => Ok(v1::CancelJobResponse { buried: true }),
            Cancelled::Asked => Ok(v1::CancelJobResponse { buried: false }),
            Cancelled::Dead => {
                let message = format!("job {job_id} is dead already: there is nothing to cancel");
                Err(Error::new(Class::Refused, message))
            }
            Cancelled::Unknown => Err(no_job(*job_id)),
        }
    }
}
