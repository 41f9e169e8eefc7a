//! Queues and their jobs, for operators: look, pause, resume, cancel.
mod jobs;

pub use jobs::{CancelJob, GetJob, ListJobs};

use crate::audit::{self, Action, Asked};
use gavel_proto::v1;
use gavel_runtime::{
    Error, Io, Result, Tx,
    auth::{Access, Caller},
    job::{self, DRAIN_WITHIN, Depth, MAX_KEY_BYTES, ops},
    rpc,
    spec::{Spec, Trigger},
    wire::timestamp,
};
use serde_json::json;

/// Who operates.
const OPS: Access = Access::Roles(&["ops"]);

/// `OpsService.ListQueues`.
pub struct ListQueues;

impl rpc::IoHandler for ListQueues {
    const SPEC: &'static Spec =
        &Spec::new("list_queues", Trigger::Rpc("gavel.v1.OpsService/ListQueues")).for_operators();
    const ACCESS: Access = OPS;
    type Request = v1::ListQueuesRequest;
    type Query = ();
    type Reply = v1::ListQueuesResponse;

    fn parse(_: v1::ListQueuesRequest, _: Option<&Caller>) -> Result<()> {
        Ok(())
    }

    async fn handle(io: &Io, (): &()) -> Result<v1::ListQueuesResponse> {
        let queues = job::depths(io).await?.into_iter().map(shown).collect();
        Ok(v1::ListQueuesResponse { queues })
    }
}

fn shown(depth: Depth) -> v1::Queue {
    let (needed_concurrency, standstill) = (depth.needed(DRAIN_WITHIN), depth.standstill().unwrap_or_default());
    let (paused_at, paused_by) = depth.paused.unzip();
    v1::Queue {
        kind: depth.kind,
        registered: depth.registered,
        paused_at: paused_at.map(timestamp),
        paused_by: paused_by.unwrap_or_default(),
        waiting: depth.waiting,
        waiting_is_estimated: depth.estimated,
        scheduled: depth.scheduled,
        running: depth.running,
        workers: depth.workers,
        dead: depth.dead,
        oldest_age_ms: i64::try_from(depth.oldest_age.as_millis()).unwrap_or(i64::MAX),
        mean_ms: depth.mean.map_or(0.0, |mean| mean.as_secs_f64() * 1_000.0),
        needed_concurrency,
        standstill,
        faulty: depth.faulty,
        exhausted: depth.exhausted,
    }
}

/// A kind of job: kinds of other versions can be paused as well.
type Command = Asked<String>;

fn command(kind: String, reason: &str, caller: &Caller) -> Result<Command> {
    if kind.is_empty() || kind.len() > MAX_KEY_BYTES {
        let message = format!("kind of {} bytes; allowed: 1 to {MAX_KEY_BYTES}, as ListQueues gives it", kind.len());
        return Err(Error::invalid(message));
    }
    Ok(Asked { what: kind, action: Action::perhaps_with(reason, &caller.subject)? })
}

/// `OpsService.PauseQueue`.
pub struct PauseQueue;

impl rpc::TxHandler for PauseQueue {
    const SPEC: &'static Spec =
        &Spec::new("pause_queue", Trigger::Rpc("gavel.v1.OpsService/PauseQueue")).for_operators();
    const ACCESS: Access = OPS;
    type Request = v1::PauseQueueRequest;
    type Command = Command;
    type Reply = v1::PauseQueueResponse;

    fn idempotency_key(request: &v1::PauseQueueRequest) -> &str {
        &request.idempotency_key
    }

    fn parse(request: v1::PauseQueueRequest, caller: &Caller) -> Result<Command> {
        command(request.kind, &request.reason, caller)
    }

    async fn handle(tx: &mut Tx, command: &Command) -> Result<v1::PauseQueueResponse> {
        let Asked { what: kind, action } = command;
        let changed = ops::pause(tx.conn(), kind, &action.by).await?;
        audit::record(tx, action, "pause_queue", kind, &json!({ "changed": changed })).await?;
        tracing::info!(kind, by = action.by, reason = action.reason, changed, "queue paused");
        Ok(v1::PauseQueueResponse { changed })
    }
}

/// `OpsService.ResumeQueue`.
pub struct ResumeQueue;

impl rpc::TxHandler for ResumeQueue {
    const SPEC: &'static Spec =
        &Spec::new("resume_queue", Trigger::Rpc("gavel.v1.OpsService/ResumeQueue")).for_operators();
    const ACCESS: Access = OPS;
    type Request = v1::ResumeQueueRequest;
    type Command = Command;
    type Reply = v1::ResumeQueueResponse;

    fn idempotency_key(request: &v1::ResumeQueueRequest) -> &str {
        &request.idempotency_key
    }

    fn parse(request: v1::ResumeQueueRequest, caller: &Caller) -> Result<Command> {
        command(request.kind, &request.reason, caller)
    }

    async fn handle(tx: &mut Tx, command: &Command) -> Result<v1::ResumeQueueResponse> {
        let Asked { what: kind, action } = command;
        let changed = ops::resume(tx.conn(), kind).await?;
        audit::record(tx, action, "resume_queue", kind, &json!({ "changed": changed })).await?;
        tracing::info!(kind, by = action.by, reason = action.reason, changed, "queue resumed");
        Ok(v1::ResumeQueueResponse { changed })
    }
}
