//! What every application on the runtime needs beside its own use cases, one folder for each: its outbox relayed, what
//! is old swept away, and the calls of operators and of autoscalers.
//!
//! An application registers [`housekeeping`], or its events stay in the outbox; and [`calls`], where its contracts have
//! `gavel.v1.OpsService` and KEDA's `externalscaler.ExternalScaler`. What operators do by its own calls it writes down by
//! [`audit`].

pub mod audit;
pub mod list_handlers;
pub mod operate_backfills;
pub mod operate_dead_jobs;
pub mod operate_parked;
pub mod operate_queues;
pub mod redeliver_message;
pub mod relay_outbox;
pub mod run_backfill_chunk;
pub mod run_online_step;
pub mod scale_workers;
pub mod sweep_receipts;

mod shown;

use gavel_runtime::App;

/// Registers what runs in workers: one line per handler.
#[must_use]
pub fn housekeeping(app: App) -> App {
    app.poll_io::<relay_outbox::RelayOutbox>()
        .job_io::<redeliver_message::Redeliver>()
        .schedule_tx::<sweep_receipts::SweepReceipts>()
}

/// Registers what fills rows when the schema changes: one line per handler. Only workers run it that are started for it
/// by name, with the rights of whoever owns the tables.
#[must_use]
pub fn schema_changes(app: App) -> App {
    app.job_tx::<run_backfill_chunk::RunBackfillChunk>().job_io::<run_online_step::RunOnlineStep>()
}

/// Registers what operators and autoscalers call: one line per method.
#[must_use]
pub fn calls(app: App) -> App {
    app.rpc_io::<list_handlers::ListHandlers>()
        .rpc_io::<operate_queues::ListQueues>()
        .rpc_tx::<operate_queues::PauseQueue>()
        .rpc_tx::<operate_queues::ResumeQueue>()
        .rpc_io::<operate_queues::ListJobs>()
        .rpc_io::<operate_queues::GetJob>()
        .rpc_tx::<operate_queues::CancelJob>()
        .rpc_io::<operate_dead_jobs::ListDeadJobs>()
        .rpc_tx::<operate_dead_jobs::RetryDeadJobs>()
        .rpc_tx::<operate_dead_jobs::DiscardDeadJobs>()
        .rpc_io::<operate_parked::ListParkedMessages>()
        .rpc_io::<operate_parked::GetParkedMessage>()
        .rpc_tx::<operate_parked::RetryParkedMessages>()
        .rpc_tx::<operate_parked::DiscardParkedMessages>()
        .rpc_tx::<operate_backfills::StartBackfill>()
        .rpc_tx::<operate_backfills::PauseBackfill>()
        .rpc_tx::<operate_backfills::ResumeBackfill>()
        .rpc_tx::<operate_backfills::CancelBackfill>()
        .rpc_tx::<operate_backfills::RetuneBackfill>()
        .rpc_io::<operate_backfills::GetBackfill>()
        .rpc_io::<operate_backfills::ListBackfills>()
        .rpc_stream::<operate_backfills::WatchBackfill>()
        .rpc_io::<scale_workers::IsActive>()
        .rpc_stream::<scale_workers::StreamIsActive>()
        .rpc_io::<scale_workers::GetMetricSpec>()
        .rpc_stream::<scale_workers::StreamMetricSpec>()
        .rpc_io::<scale_workers::GetMetrics>()
}
