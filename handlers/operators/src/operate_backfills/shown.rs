//! A plan, as the contract says it.
use chrono::{DateTime, TimeDelta, Utc};
use gavel_proto::v1;
use gavel_runtime::{schema::backfill::Plan, wire::timestamp};

/// One that no worker has looked at for this long is stuck.
const STUCK_AFTER: TimeDelta = TimeDelta::minutes(5);

pub(super) fn shown(plan: Plan, now: DateTime<Utc>) -> v1::Backfill {
    let is_at = match &*plan.state {
        "running" => v1::BackfillState::Running,
        "paused" => v1::BackfillState::Paused,
        "done" => v1::BackfillState::Done,
        "cancelled" => v1::BackfillState::Cancelled,
        _ => v1::BackfillState::Unspecified,
    };
    let stage = match &*plan.stage {
        "chunks" => v1::BackfillStage::Chunks,
        "waiting" => v1::BackfillStage::Waiting,
        "online" => v1::BackfillStage::Online,
        _ => v1::BackfillStage::Unspecified,
    };
    let is_running = is_at == v1::BackfillState::Running;
    let is_walking = is_running && stage == v1::BackfillStage::Chunks;
    v1::Backfill {
        eta_seconds: eta(&plan).filter(|_| is_walking),
        is_stuck: plan.silent_for(now) > STUCK_AFTER,
        tuning: Some(v1::BackfillTuning {
            target_ms: Some(plan.target_ms),
            most_rows: Some(plan.most_rows),
            rest_ratio: Some(plan.rest_ratio),
            p99_limit_ms: Some(plan.p99_limit_ms),
            p99_ratio: Some(plan.p99_ratio),
            wal_limit_bytes_s: Some(plan.wal_limit_bytes_s),
            lag_limit_ms: Some(plan.lag_limit_ms),
        }),
        change: plan.change,
        name: plan.name,
        table: plan.table_name,
        state: is_at.into(),
        stage: stage.into(),
        why: plan.why,
        throttled_by: if is_running { plan.throttled_by } else { String::new() },
        rows_estimated: plan.rows_estimated,
        rows_passed: plan.rows_passed,
        rows_changed: plan.rows_changed,
        rows_per_second: plan.rate,
        chunk_rows: plan.chunk_rows,
        chunks: plan.chunks,
        busy_ms: plan.busy_ms,
        throttled_ms: plan.throttled_ms,
        halvings: plan.halvings,
        pass: plan.pass,
        started_at: Some(timestamp(plan.started_at)),
        started_by: plan.started_by,
        progressed_at: Some(timestamp(plan.progressed_at)),
        finished_at: plan.finished_at.map(timestamp),
        evidence_json: plan.evidence.to_string(),
        pace: plan.pace,
        p99_before_ms: plan.p99_before_ms,
    }
}

/// Seconds until the walk is over at the pace of late.
#[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "a guess for people")]
fn eta(plan: &Plan) -> Option<i64> {
    (plan.rate > 0.0).then(|| (plan.left() as f64 / plan.rate).ceil() as i64)
}
