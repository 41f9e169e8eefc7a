//! Backfills, for operators: start, pause, resume, cancel, retune, look, watch.
mod looking;
mod shown;

pub use looking::{GetBackfill, ListBackfills, WatchBackfill};

use crate::audit::{self, Action};
use gavel_proto::v1;
use gavel_runtime::{
    Error, Result, Tx,
    auth::{Access, Caller},
    rpc,
    schema::backfill::ops::{self, Tuning},
    spec::{Spec, Trigger},
};
use serde::Serialize;
use serde_json::json;
use shown::shown;

/// Who operates.
const OPS: Access = Access::Roles(&["ops"]);

/// What is asked of which backfill.
#[derive(Serialize)]
pub struct Command {
    change: i64,
    action: Action,
    tuning: Tuning,
}

impl Command {
    fn of(change: i64, reason: &str, tuning: Option<v1::BackfillTuning>, caller: &Caller) -> Result<Self> {
        if change < 1 {
            return Err(Error::invalid(format!("change is {change}; allowed: from 1, the number in the file's name")));
        }
        let tuning = tuning.unwrap_or_default();
        let tuning = Tuning {
            target_ms: tuning.target_ms,
            most_rows: tuning.most_rows,
            rest_ratio: tuning.rest_ratio,
            p99_limit_ms: tuning.p99_limit_ms,
            p99_ratio: tuning.p99_ratio,
            wal_limit_bytes_s: tuning.wal_limit_bytes_s,
            lag_limit_ms: tuning.lag_limit_ms,
        };
        tuning.check()?;
        Ok(Self { change, action: Action::new(&caller.subject, reason)?, tuning })
    }
}

/// A call that changes a backfill: what it does, and the audit's entry, in one transaction.
macro_rules! changing {
    ($(#[$doc:meta])* $name:ident, $handler:literal, $method:literal, $request:ident, $response:ident,
     |$tuned:ident| $tuning:expr, |$tx:ident, $command:ident| $work:expr) => {
        $(#[$doc])*
        pub struct $name;

        impl rpc::TxHandler for $name {
            const SPEC: &'static Spec =
                &Spec::new($handler, Trigger::Rpc(concat!("gavel.v1.OpsService/", $method))).for_operators();
            const ACCESS: Access = OPS;
            type Request = v1::$request;
            type Command = Command;
            type Reply = v1::$response;

            fn idempotency_key(request: &v1::$request) -> &str {
                &request.idempotency_key
            }

            fn parse($tuned: v1::$request, caller: &Caller) -> Result<Command> {
                Command::of($tuned.change, &$tuned.reason, $tuning, caller)
            }

            async fn handle($tx: &mut Tx, $command: &Command) -> Result<v1::$response> {
                let plan = $work?;
                let details = json!({ "tuning": $command.tuning, "cursor": plan.cursor });
                audit::record($tx, &$command.action, $handler, &plan.name, &details).await?;
                let (by, reason) = $command.action.who();
                tracing::info!(plan = plan.name, by, reason, concat!($handler));
                let now = plan.progressed_at;
                Ok(v1::$response { backfill: Some(shown(plan, now)) })
            }
        }
    };
}

changing! {
    /// `OpsService.StartBackfill`.
    StartBackfill, "start_backfill", "StartBackfill", StartBackfillRequest, StartBackfillResponse,
    |request| request.tuning,
    |tx, command| ops::start(tx, command.change, &command.tuning, command.action.who()).await
}

changing! {
    /// `OpsService.PauseBackfill`.
    PauseBackfill, "pause_backfill", "PauseBackfill", PauseBackfillRequest, PauseBackfillResponse,
    |request| None,
    |tx, command| ops::pause(tx, command.change, command.action.who()).await
}

changing! {
    /// `OpsService.ResumeBackfill`.
    ResumeBackfill, "resume_backfill", "ResumeBackfill", ResumeBackfillRequest, ResumeBackfillResponse,
    |request| None,
    |tx, command| ops::resume(tx, command.change, command.action.who()).await
}

changing! {
    /// `OpsService.CancelBackfill`.
    CancelBackfill, "cancel_backfill", "CancelBackfill", CancelBackfillRequest, CancelBackfillResponse,
    |request| None,
    |tx, command| ops::cancel(tx, command.change, command.action.who()).await
}

changing! {
    /// `OpsService.RetuneBackfill`.
    RetuneBackfill, "retune_backfill", "RetuneBackfill", RetuneBackfillRequest, RetuneBackfillResponse,
    |request| request.tuning,
    |tx, command| ops::retune(tx, command.change, &command.tuning, command.action.who()).await
}
