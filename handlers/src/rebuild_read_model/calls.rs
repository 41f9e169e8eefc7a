//! What operators ask: that it is made anew, and how far that is.
use super::sql::{self, Row};
use crate::jobs;
use gavel_operators::audit::{self, Action};
use gavel_proto::v1;
use gavel_runtime::{
    Error, Io, Result, Tx,
    auth::{Access, Caller},
    ids,
    job::{self, Job, Options, inspect},
    rpc,
    spec::{Spec, Trigger},
    wire::{timestamp, uuid},
};
use serde_json::json;
use uuid::Uuid;

/// Who operates.
const OPS: Access = Access::Roles(&["ops"]);

/// `OpsService.StartRebuild`.
pub struct StartRebuild;

impl rpc::TxHandler for StartRebuild {
    const SPEC: &'static Spec =
        &Spec::new("start_rebuild", Trigger::Rpc("gavel.v1.OpsService/StartRebuild")).for_operators();
    const ACCESS: Access = OPS;
    type Request = v1::StartRebuildRequest;
    type Command = Action;
    type Reply = v1::StartRebuildResponse;

    fn idempotency_key(request: &v1::StartRebuildRequest) -> &str {
        &request.idempotency_key
    }

    fn parse(request: v1::StartRebuildRequest, caller: &Caller) -> Result<Action> {
        Action::new(&caller.subject, &request.reason)
    }

    async fn handle(tx: &mut Tx, action: &Action) -> Result<v1::StartRebuildResponse> {
        if let Some(rebuild_id) = sql::under_way(tx).await? {
            return Ok(started(rebuild_id, false));
        }
        let rebuild_id = ids::ordered();
        let job_id = tx.enqueue(&jobs::RebuildReadModel { rebuild_id }, Options::new()).await?.job_id();
        sql::begin(tx, rebuild_id, job_id, action.who()).await?;
        audit::record(tx, action, "start_rebuild", "read_model", &json!({ "rebuild_id": rebuild_id })).await?;
        Ok(started(rebuild_id, true))
    }
}

fn started(rebuild_id: Uuid, started: bool) -> v1::StartRebuildResponse {
    v1::StartRebuildResponse { rebuild_id: rebuild_id.to_string(), started }
}

/// `OpsService.GetRebuild`.
pub struct GetRebuild;

impl rpc::IoHandler for GetRebuild {
    const SPEC: &'static Spec =
        &Spec::new("get_rebuild", Trigger::Rpc("gavel.v1.OpsService/GetRebuild")).for_operators();
    const ACCESS: Access = OPS;
    type Request = v1::GetRebuildRequest;
    type Query = Uuid;
    type Reply = v1::GetRebuildResponse;

    fn parse(request: v1::GetRebuildRequest, _: Option<&Caller>) -> Result<Uuid> {
        uuid("rebuild_id", &request.rebuild_id)
    }

    async fn handle(io: &Io, rebuild_id: &Uuid) -> Result<v1::GetRebuildResponse> {
        let row = found(io, *rebuild_id).await?;
        if let Some(over) = over(&row) {
            return Ok(shown(row, over));
        }
        let under_way = state_of_job(io, &row).await?;
        // It may have been done while its job was looked for.
        let row = if under_way.0 == v1::RebuildState::Dead { found(io, *rebuild_id).await? } else { row };
        let state = over(&row).unwrap_or(under_way);
        Ok(shown(row, state))
    }
}

async fn found(io: &Io, rebuild_id: Uuid) -> Result<Row> {
    let none = || Error::not_found(format!("there is no rebuild {rebuild_id}"));
    sql::rebuild(io.reads(), rebuild_id).await?.ok_or_else(none)
}

/// What has become of it; none while it is under way, as far as its row says.
fn over(row: &Row) -> Option<(v1::RebuildState, String)> {
    match &*row.state {
        "running" => None,
        "done" => Some((v1::RebuildState::Done, String::new())),
        _ => Some((v1::RebuildState::Dead, "its job was gone when another was started".to_owned())),
    }
}

/// What has become of its job, and what is in its way.
async fn state_of_job(io: &Io, row: &Row) -> Result<(v1::RebuildState, String)> {
    let Some(job) = inspect::job(io.reads(), row.job_id).await? else {
        return Ok((v1::RebuildState::Dead, "its job was discarded".to_owned()));
    };
    let failed = job.errors.last().filter(|failed| failed.at > row.progressed_at);
    let failed = failed.map_or_else(String::new, |failed| format!("try {}: {}", failed.number, failed.error));
    let why = match job.state {
        inspect::State::Dead => return Ok((v1::RebuildState::Dead, failed)),
        inspect::State::Running => None,
        _ => in_the_way(&job::depth(io, jobs::RebuildReadModel::KIND).await?),
    };
    let noted = if row.why.is_empty() { failed } else { row.why.clone() };
    Ok((v1::RebuildState::Running, why.unwrap_or(noted)))
}

fn in_the_way(queue: &job::Depth) -> Option<String> {
    let paused = queue.paused.as_ref();
    paused
        .map(|(at, by)| format!("its queue is paused by {by} since {}", at.format("%FT%TZ")))
        .or_else(|| queue.standstill())
}

fn shown(row: Row, (state, why): (v1::RebuildState, String)) -> v1::GetRebuildResponse {
    let rebuild = v1::Rebuild {
        rebuild_id: row.rebuild_id.to_string(),
        state: state.into(),
        why,
        items_estimated: row.items_estimated.max(row.items),
        items: row.items,
        missing: row.missing,
        earlier: row.earlier,
        wrong: row.wrong,
        checked: row.checked,
        wrong_again: row.wrong_again,
        started_at: Some(timestamp(row.started_at)),
        started_by: row.started_by,
        reason: row.reason,
        progressed_at: Some(timestamp(row.progressed_at)),
        finished_at: row.finished_at.map(timestamp),
        job_id: row.job_id.to_string(),
    };
    v1::GetRebuildResponse { rebuild: Some(rebuild) }
}
