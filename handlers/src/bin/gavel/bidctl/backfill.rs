//! Backfills: rows of a change of the schema, filled beside everybody's work.
use crate::bidctl::{
    client,
    ops::{Ops, key},
    output::{Output, optional_time, say},
    settings::Settings,
    why,
};
use clap::{Args, Subcommand};
use futures_util::StreamExt;
use gavel_proto::v1::{self, BackfillStage, BackfillState};
use serde_json::{Value, json};
use std::{
    fmt::Write as _,
    io::{IsTerminal, Write},
    str::FromStr,
};

#[derive(Subcommand)]
pub(crate) enum Backfill {
    /// Begin to fill the rows of a change
    Start(Start),
    /// Show how far it is, until it is done; Ctrl-C ends the showing, not the backfill
    Watch(Of),
    /// List all that were ever started
    List,
    /// Stop it after the chunk that runs
    Pause(Because),
    /// Let it go on where it was
    Resume(Because),
    /// Change how it runs, from the next chunk on
    Retune(Start),
    /// End it; what was filled stays
    Cancel(Because),
}

/// A change's number, as 27, 0027 or 0027_widen_bid_amounts.
#[derive(Clone, Copy)]
pub(crate) struct Number(pub(crate) i64);

impl FromStr for Number {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.split('_').next().and_then(|digits| digits.parse().ok()).filter(|number| *number > 0);
        number.map(Self).ok_or_else(|| "allowed: a change's number, such as 27".to_owned())
    }
}

#[derive(Args)]
pub(crate) struct Of {
    /// The change's number, such as 27
    change: Number,
}

#[derive(Args)]
pub(crate) struct Because {
    /// The change's number, such as 27
    change: Number,
    /// Why, for the audit
    #[arg(long, value_parser = why::reason)]
    reason: String,
}

#[derive(Args)]
pub(crate) struct Start {
    #[command(flatten)]
    because: Because,
    #[command(flatten)]
    tuning: Tuning,
}

#[derive(Args, Clone, Copy)]
struct Tuning {
    /// A chunk is to take this long, in milliseconds [as its file says]
    #[arg(long, value_name = "MS")]
    target_ms: Option<i32>,
    /// Rows of a statement, at most [20000]
    #[arg(long, value_name = "N")]
    most_rows: Option<i32>,
    /// Rest after each chunk, as a multiple of what it took [0.1]
    #[arg(long, value_name = "X")]
    rest_ratio: Option<f32>,
    /// Wait while the p99 of bids is above this, in milliseconds [250]
    #[arg(long, value_name = "MS")]
    p99_limit_ms: Option<i32>,
    /// Slow down while the p99 of bids is above this many times what it is without the backfill, 0 for never [1.25]
    #[arg(long, value_name = "X")]
    p99_ratio: Option<f32>,
    /// Wait while the server writes more log than this, in bytes a second [134217728]
    #[arg(long, value_name = "BYTES")]
    wal_limit_bytes_s: Option<i64>,
    /// Wait while a replica is behind by more than this, in milliseconds [10000]
    #[arg(long, value_name = "MS")]
    lag_limit_ms: Option<i32>,
}

impl Tuning {
    fn wire(self) -> Option<v1::BackfillTuning> {
        let tuning = v1::BackfillTuning {
            target_ms: self.target_ms,
            most_rows: self.most_rows,
            rest_ratio: self.rest_ratio,
            p99_limit_ms: self.p99_limit_ms,
            p99_ratio: self.p99_ratio,
            wal_limit_bytes_s: self.wal_limit_bytes_s,
            lag_limit_ms: self.lag_limit_ms,
        };
        (tuning != v1::BackfillTuning::default()).then_some(tuning)
    }
}

impl Backfill {
    pub(crate) async fn run(&self, settings: &Settings, output: Output) -> anyhow::Result<()> {
        let ops = &Ops::new(settings)?;
        let changed = match self {
            Self::Start(start) => ops.start(start).await?,
            Self::Retune(start) => ops.retune(start).await?,
            Self::Pause(because) => ops.pause_backfill(because).await?,
            Self::Resume(because) => ops.resume_backfill(because).await?,
            Self::Cancel(because) => ops.cancel_backfill(because).await?,
            Self::Watch(of) => return ops.watch(of.change.0, settings, output).await,
            Self::List => return ops.list_backfills(output).await,
        };
        let backfill = changed.unwrap_or_default();
        output.record(&json!({ "backfill": as_json(&backfill) }), &[(&backfill.name, line(&backfill))]);
        Ok(())
    }
}

impl Ops<'_> {
    async fn start(&self, Start { because, tuning }: &Start) -> anyhow::Result<Option<v1::Backfill>> {
        let (change, reason, tuning) = (because.change.0, because.reason.clone(), tuning.wire());
        let request = v1::StartBackfillRequest { idempotency_key: key(), change, reason, tuning };
        Ok(self.said(self.client.start_backfill(self.request(request)).await)?.backfill)
    }

    async fn retune(&self, Start { because, tuning }: &Start) -> anyhow::Result<Option<v1::Backfill>> {
        let (change, reason, tuning) = (because.change.0, because.reason.clone(), tuning.wire());
        let request = v1::RetuneBackfillRequest { idempotency_key: key(), change, reason, tuning };
        Ok(self.said(self.client.retune_backfill(self.request(request)).await)?.backfill)
    }

    async fn pause_backfill(&self, Because { change, reason }: &Because) -> anyhow::Result<Option<v1::Backfill>> {
        let request = v1::PauseBackfillRequest { idempotency_key: key(), change: change.0, reason: reason.clone() };
        Ok(self.said(self.client.pause_backfill(self.request(request)).await)?.backfill)
    }

    async fn resume_backfill(&self, Because { change, reason }: &Because) -> anyhow::Result<Option<v1::Backfill>> {
        let request = v1::ResumeBackfillRequest { idempotency_key: key(), change: change.0, reason: reason.clone() };
        Ok(self.said(self.client.resume_backfill(self.request(request)).await)?.backfill)
    }

    async fn cancel_backfill(&self, Because { change, reason }: &Because) -> anyhow::Result<Option<v1::Backfill>> {
        let request = v1::CancelBackfillRequest { idempotency_key: key(), change: change.0, reason: reason.clone() };
        Ok(self.said(self.client.cancel_backfill(self.request(request)).await)?.backfill)
    }

    async fn list_backfills(&self, output: Output) -> anyhow::Result<()> {
        let all = self.said(self.client.list_backfills(self.request(v1::ListBackfillsRequest {})).await)?.backfills;
        let json = json!({ "backfills": all.iter().map(as_json).collect::<Vec<_>>() });
        let rows: Vec<_> = all.iter().map(|backfill| vec![backfill.name.clone(), line(backfill)]).collect();
        output.table(&json, &["backfill", "how far"], &rows);
        Ok(())
    }

    async fn watch(&self, change: i64, settings: &Settings, output: Output) -> anyhow::Result<()> {
        let stream = self.client.watch_backfill(self.request(v1::WatchBackfillRequest { change })).await;
        let explained = |status| client::explained_of(settings, &settings.ops_url, &status);
        let mut stream = stream.map_err(explained)?.into_inner();
        let is_bar = !output.json && std::io::stdout().is_terminal();
        let mut is_running = true;
        loop {
            let frame = tokio::select! {
                frame = stream.next() => frame,
                _ = tokio::signal::ctrl_c() => {
                    let stays = if is_running { "goes on" } else { "stays paused" };
                    say!("{}the backfill {stays}: this ended the showing alone", if is_bar { "\n" } else { "" });
                    return Ok(());
                }
            };
            let Some(frame) = frame else { break };
            let Some(backfill) = frame.map_err(explained)?.backfill else { continue };
            is_running = backfill.state() == BackfillState::Running;
            if output.json {
                say!("{}", json!({ "backfill": as_json(&backfill) }));
            } else if is_bar {
                print!("\r\x1b[2K{} {}", bar(&backfill), line(&backfill));
                std::io::stdout().flush()?;
            } else {
                say!("{}: {}", backfill.name, line(&backfill));
            }
        }
        if is_bar {
            say!("");
        }
        Ok(())
    }
}

/// Cells of a progress bar.
const CELLS: usize = 24;

fn bar(backfill: &v1::Backfill) -> String {
    let full = usize::try_from(percent(backfill)).unwrap_or(0) * CELLS / 100;
    format!("[{}{}]", "#".repeat(full), ".".repeat(CELLS.saturating_sub(full)))
}

fn percent(backfill: &v1::Backfill) -> i64 {
    if backfill.state() == BackfillState::Done || backfill.stage() == BackfillStage::Online {
        return 100;
    }
    (backfill.rows_passed * 100 / backfill.rows_estimated.max(1)).clamp(0, 99)
}

fn line(backfill: &v1::Backfill) -> String {
    let state = match (backfill.state(), backfill.stage()) {
        (BackfillState::Running, BackfillStage::Waiting) => "waits for old programs to end",
        (BackfillState::Running, BackfillStage::Online) => "indexes and constraints",
        (BackfillState::Running, _) => "runs",
        (BackfillState::Paused, _) => "paused, until somebody resumes or cancels it",
        (BackfillState::Done, _) => "done",
        (BackfillState::Cancelled, _) => "cancelled",
        (BackfillState::Unspecified, _) => "unknown",
    };
    let mut line = format!(
        "{state}, {} %, {} of about {} rows, {:.0} rows/s",
        percent(backfill),
        backfill.rows_passed,
        backfill.rows_estimated,
        backfill.rows_per_second
    );
    if let Some(before) = backfill.p99_before_ms.filter(|_| backfill.pace < 1.0) {
        let _ = write!(line, ", at {:.0} % of its pace for bids' p99 of {before:.1} ms", backfill.pace * 100.0);
    }
    if let Some(left) = backfill.eta_seconds {
        let _ = write!(line, ", {}:{:02} left", left / 60, left % 60);
    }
    for (what, why) in [("waits: ", &backfill.throttled_by), ("", &backfill.why)] {
        if !why.is_empty() {
            let _ = write!(line, "; {what}{why}");
        }
    }
    if backfill.is_stuck { line + "; stuck" } else { line }
}

fn as_json(backfill: &v1::Backfill) -> Value {
    json!({
        "change": backfill.change, "name": backfill.name, "table": backfill.table,
        "state": backfill.state().as_str_name(), "stage": backfill.stage().as_str_name(), "why": backfill.why,
        "throttled_by": backfill.throttled_by, "rows_estimated": backfill.rows_estimated,
        "rows_passed": backfill.rows_passed, "rows_changed": backfill.rows_changed,
        "rows_per_second": backfill.rows_per_second, "eta_seconds": backfill.eta_seconds,
        "chunk_rows": backfill.chunk_rows, "chunks": backfill.chunks, "busy_ms": backfill.busy_ms,
        "pace": backfill.pace, "p99_before_ms": backfill.p99_before_ms, "throttled_ms": backfill.throttled_ms, "halvings": backfill.halvings, "pass": backfill.pass,
        "is_stuck": backfill.is_stuck, "started_at": optional_time(backfill.started_at.as_ref()),
        "started_by": backfill.started_by, "progressed_at": optional_time(backfill.progressed_at.as_ref()),
        "finished_at": optional_time(backfill.finished_at.as_ref()),
        "evidence": serde_json::from_str::<Value>(&backfill.evidence_json).unwrap_or_default(),
    })
}
