//! Dead jobs, for operators: list, queue again, discard.
use crate::{
    audit::{self, Action, Asked},
    shown::shown_job,
};
use gavel_proto::v1;
use gavel_runtime::{
    Io, Result, Tx,
    auth::{Access, Caller},
    job::{
        inspect,
        ops::{self, Selection},
    },
    rpc,
    spec::{Spec, Trigger},
    wire::{PageKey, page, page_key, page_size, selection, texts},
};
use serde_json::json;

const OPS: Access = Access::Roles(&["ops"]);

/// `OpsService.ListDeadJobs`.
pub struct ListDeadJobs;

/// A checked request for a page.
pub struct Query {
    kind: Option<String>,
    size: i64,
    after: Option<PageKey>,
}

impl rpc::IoHandler for ListDeadJobs {
    const SPEC: &'static Spec =
        &Spec::new("list_dead_jobs", Trigger::Rpc("gavel.v1.OpsService/ListDeadJobs")).for_operators();
    const ACCESS: Access = OPS;
    type Request = v1::ListDeadJobsRequest;
    type Query = Query;
    type Reply = v1::ListDeadJobsResponse;

    fn parse(request: v1::ListDeadJobsRequest, _: Option<&Caller>) -> Result<Query> {
        let kind = Some(request.kind).filter(|kind| !kind.is_empty());
        Ok(Query { kind, size: page_size(request.page_size)?, after: page_key(&request.page_token)? })
    }

    async fn handle(io: &Io, query: &Query) -> Result<v1::ListDeadJobsResponse> {
        let after = query.after.map(|key| (key.at, key.id));
        let rows = inspect::dead(io.reads(), query.kind.as_deref(), after, query.size + 1).await?;
        let (rows, next_page_token) = page(rows, query.size, |job| PageKey { at: job.at, id: job.job_id }.to_string());
        let jobs = rows.into_iter().map(|job| shown_job(job, false)).collect();
        Ok(v1::ListDeadJobsResponse { jobs, next_page_token })
    }
}

fn dead(ids: &[String], kind: String) -> Result<Selection> {
    selection(("job_ids", ids), ("kind", kind), ops::MAX_SELECTED, Selection::Ids, Selection::Of)
}

/// `OpsService.RetryDeadJobs`.
pub struct RetryDeadJobs;

impl rpc::TxHandler for RetryDeadJobs {
    const SPEC: &'static Spec =
        &Spec::new("retry_dead_jobs", Trigger::Rpc("gavel.v1.OpsService/RetryDeadJobs")).for_operators();
    const ACCESS: Access = OPS;
    type Request = v1::RetryDeadJobsRequest;
    type Command = Asked<Selection>;
    type Reply = v1::RetryDeadJobsResponse;

    fn idempotency_key(request: &v1::RetryDeadJobsRequest) -> &str {
        &request.idempotency_key
    }

    fn parse(request: v1::RetryDeadJobsRequest, caller: &Caller) -> Result<Asked<Selection>> {
        let action = Action::perhaps_with(&request.reason, &caller.subject)?;
        Ok(Asked { what: dead(&request.job_ids, request.kind)?, action })
    }

    async fn handle(
        tx: &mut Tx,
        Asked { what: selection, action }: &Asked<Selection>,
    ) -> Result<v1::RetryDeadJobsResponse> {
        let missing = ops::not_dead(tx.conn(), selection).await?;
        let count = ops::redrive(tx.conn(), selection).await?;
        audit::record(tx, action, "retry_dead_jobs", &audit::target(selection), &json!({ "count": count })).await?;
        tracing::info!(count, ?selection, by = action.by, reason = action.reason, "dead jobs queued again");
        Ok(v1::RetryDeadJobsResponse { count: i64::try_from(count).unwrap_or(i64::MAX), missing: texts(&missing) })
    }
}

/// `OpsService.DiscardDeadJobs`.
pub struct DiscardDeadJobs;

impl rpc::TxHandler for DiscardDeadJobs {
    const SPEC: &'static Spec =
        &Spec::new("discard_dead_jobs", Trigger::Rpc("gavel.v1.OpsService/DiscardDeadJobs")).for_operators();
    const ACCESS: Access = OPS;
    type Request = v1::DiscardDeadJobsRequest;
    type Command = Asked<Selection>;
    type Reply = v1::DiscardDeadJobsResponse;

    fn idempotency_key(request: &v1::DiscardDeadJobsRequest) -> &str {
        &request.idempotency_key
    }

    fn parse(request: v1::DiscardDeadJobsRequest, caller: &Caller) -> Result<Asked<Selection>> {
        let action = Action::perhaps_with(&request.reason, &caller.subject)?;
        Ok(Asked { what: dead(&request.job_ids, request.kind)?, action })
    }

    async fn handle(
        tx: &mut Tx,
        Asked { what: selection, action }: &Asked<Selection>,
    ) -> Result<v1::DiscardDeadJobsResponse> {
        let missing = ops::not_dead(tx.conn(), selection).await?;
        let count = ops::discard(tx.conn(), selection).await?;
        audit::record(tx, action, "discard_dead_jobs", &audit::target(selection), &json!({ "count": count })).await?;
        tracing::info!(count, ?selection, by = action.by, reason = action.reason, "dead jobs discarded");
        Ok(v1::DiscardDeadJobsResponse { count: i64::try_from(count).unwrap_or(i64::MAX), missing: texts(&missing) })
    }
}
