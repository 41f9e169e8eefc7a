//! The read model made anew by a job, which is started and then looked at.
use crate::bidctl::{
    ops::{Ops, key},
    output::{Output, optional_time},
    settings::Settings,
    why,
};
use anyhow::{bail, ensure};
use clap::Args;
use gavel_proto::v1::{self, RebuildState};
use serde_json::{Value, json};
use std::{
    io::Write,
    time::{Duration, Instant},
};

/// How far it is, is asked so often.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A service that does not answer is asked again for this long.
const PATIENCE: Duration = Duration::from_secs(15);
/// What is in its way is said so often where nobody sees a line change.
const SAY_EVERY: Duration = Duration::from_mins(1);

/// Goes through all items, and once more: nothing may be wrong then. An item that moved on meanwhile is not.
#[derive(Args)]
pub(crate) struct ReadModel {
    /// Why, for the audit
    #[arg(long, value_parser = why::reason)]
    reason: String,
}

impl ReadModel {
    pub(super) async fn run(&self, settings: &Settings, output: Output) -> anyhow::Result<()> {
        let ops = &Ops::new(settings)?;
        let request = v1::StartRebuildRequest { idempotency_key: key(), reason: self.reason.clone() };
        let started = ops.said(ops.client.start_rebuild(ops.request(request)).await)?;
        if !started.started {
            eprintln!("one is under way already: this shows how far it is");
        }
        tokio::select! {
            ended = until_ended(ops, &started.rebuild_id, output) => ended,
            _ = tokio::signal::ctrl_c() => {
                bail!("the job goes on: this ended the showing alone. The same command comes back to it")
            }
        }
    }
}

async fn until_ended(ops: &Ops<'_>, rebuild_id: &str, output: Output) -> anyhow::Result<()> {
    let mut shown = Shown::to(output);
    let mut answered = Instant::now();
    loop {
        let request = v1::GetRebuildRequest { rebuild_id: rebuild_id.to_owned() };
        let found = match ops.said(ops.client.get_rebuild(ops.request(request)).await) {
            Ok(found) => found.rebuild.unwrap_or_default(),
            // A service is rolled.
            Err(_) if answered.elapsed() < PATIENCE => {
                tokio::time::sleep(LOOK_EVERY).await;
                continue;
            }
            Err(error) => return Err(error.context(format!("rebuild {rebuild_id} goes on, and can't be looked at"))),
        };
        answered = Instant::now();
        match found.state() {
            RebuildState::Done => {
                shown.clear();
                return ended(&found, output);
            }
            RebuildState::Dead => {
                shown.clear();
                bail!("it is not done, and its job {} is dead: {}", found.job_id, found.why);
            }
            RebuildState::Running | RebuildState::Unspecified => shown.show(&found)?,
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// What is told of one that is under way: always the newest line at a terminal; elsewhere what is in its way, now and
/// then.
struct Shown {
    is_watched: bool,
    said: Option<Instant>,
}

impl Shown {
    fn to(output: Output) -> Self {
        Self { is_watched: output.is_watched(), said: None }
    }

    fn show(&mut self, found: &v1::Rebuild) -> anyhow::Result<()> {
        if self.is_watched {
            eprint!("\r\x1b[2K{}", line(found));
            std::io::stderr().flush()?;
        } else if !found.why.is_empty() && self.said.is_none_or(|said| said.elapsed() > SAY_EVERY) {
            eprintln!("{}", line(found));
            self.said = Some(Instant::now());
        }
        Ok(())
    }

    fn clear(&self) {
        if self.is_watched {
            eprint!("\r\x1b[2K");
        }
    }
}

fn line(found: &v1::Rebuild) -> String {
    let (passed, what) =
        if found.checked > 0 { (found.checked, "looked at once more") } else { (found.items, "put right") };
    let why = if found.why.is_empty() { String::new() } else { format!("; {}", found.why) };
    let all =
        if found.items_estimated > passed { format!(" of about {}", found.items_estimated) } else { String::new() };
    format!("{passed}{all} items {what}{why}")
}

fn ended(found: &v1::Rebuild, output: Output) -> anyhow::Result<()> {
    let rows = [
        ("items", found.items.to_string()),
        ("of which were missing", found.missing.to_string()),
        ("were an earlier version", found.earlier.to_string()),
        ("were wrong", found.wrong.to_string()),
        ("looked at once more", found.checked.to_string()),
        ("and were wrong again", found.wrong_again.to_string()),
    ];
    output.record(&as_json(found), &rows);
    let again = found.wrong_again;
    ensure!(again == 0, "{again} items are wrong again: somebody else writes into the read model");
    Ok(())
}

fn as_json(found: &v1::Rebuild) -> Value {
    json!({
        "rebuild_id": found.rebuild_id, "state": found.state().as_str_name(), "items": found.items,
        "missing": found.missing, "earlier": found.earlier, "wrong": found.wrong, "checked": found.checked,
        "wrong_again": found.wrong_again, "started_at": optional_time(found.started_at.as_ref()),
        "started_by": found.started_by, "finished_at": optional_time(found.finished_at.as_ref()),
    })
}
