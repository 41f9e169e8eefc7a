//! Queues and the jobs in them.
use crate::bidctl::{
    jobs, names,
    ops::{Ops, key},
    output::{Output, age, optional_time, say, time},
    refused::Refused,
    settings::Settings,
    watch::Watch,
    why::Why,
};
use anyhow::{bail, ensure};
use clap::{Args, Subcommand};
use gavel_proto::v1;
use serde_json::{Value, json};

#[derive(Subcommand)]
pub(crate) enum Queue {
    /// List all queues: one per kind of job
    List(List),
    /// Show one queue and the jobs that are next in it
    Show(Show),
    /// Let no worker claim jobs of a kind; what runs goes on
    Pause(Kind),
    /// Let workers claim jobs of a kind again
    Resume(Kind),
    /// Show one job, queued or dead, with its arguments and errors
    Job(JobId),
    /// Put a queued job among the dead, or ask a running one to stop
    Cancel(Cancel),
}

#[derive(Args)]
pub(crate) struct List {
    #[command(flatten)]
    watch: Watch,
}

#[derive(Args)]
pub(crate) struct Show {
    /// The kind of its jobs
    kind: String,
    /// At most this many jobs, up to 100
    #[arg(long, default_value_t = 20)]
    limit: i32,
    #[command(flatten)]
    watch: Watch,
}

#[derive(Args)]
pub(crate) struct Kind {
    /// The kind of its jobs
    kind: String,
    #[command(flatten)]
    why: Why,
}

#[derive(Args)]
pub(crate) struct JobId {
    /// The job's id
    job_id: String,
}

#[derive(Args)]
pub(crate) struct Cancel {
    /// The job's id
    job_id: String,
    /// Really, where something follows from it
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    why: Why,
}

impl Queue {
    pub(crate) async fn run(&self, settings: &Settings, output: Output) -> anyhow::Result<()> {
        let ops = &Ops::new(settings)?;
        match self {
            Self::List(list) => list.watch.run(output, |output| ops.list(output)).await,
            Self::Show(show) => show.watch.run(output, |output| ops.show(show, output)).await,
            Self::Pause(of) => ops.pause(of, output).await,
            Self::Resume(of) => ops.resume(of, output).await,
            Self::Job(of) => ops.job(&of.job_id, output).await,
            Self::Cancel(cancel) => ops.cancel(cancel, output).await,
        }
    }
}

impl Ops<'_> {
    async fn queues(&self) -> anyhow::Result<Vec<v1::Queue>> {
        Ok(self.said(self.client.list_queues(self.request(v1::ListQueuesRequest {})).await)?.queues)
    }

    async fn list(&self, output: Output) -> anyhow::Result<()> {
        let queues = self.queues().await?;
        let json = json!({ "queues": queues.iter().map(as_json).collect::<Vec<_>>() });
        output.table(&json, &HEADER, &queues.iter().map(as_row).collect::<Vec<_>>());
        Ok(())
    }

    async fn show(&self, show: &Show, output: Output) -> anyhow::Result<()> {
        let queues = self.queues().await?;
        let queue = named(&queues, &show.kind)?;
        let request = v1::ListJobsRequest { kind: show.kind.clone(), limit: show.limit };
        let listed = self.said(self.client.list_jobs(self.request(request)).await)?.jobs;
        let all = queue.waiting + queue.scheduled + queue.running;
        let is_more = i64::try_from(listed.len()).is_ok_and(|listed| listed < all);
        if output.json {
            let listed: Vec<_> = listed.iter().map(jobs::as_json).collect();
            output.record(&json!({ "queue": as_json(queue), "jobs": listed, "more": is_more }), &[]);
            return Ok(());
        }
        let mut lines: Vec<_> = HEADER.into_iter().zip(as_row(queue)).collect();
        if !queue.standstill.is_empty() {
            lines.push(("why it stands still", queue.standstill.clone()));
        }
        output.record(&Value::Null, &lines);
        say!("");
        let rows: Vec<_> = listed.iter().map(jobs::as_row).collect();
        output.table(&Value::Null, &jobs::HEADER, &rows);
        output.more(is_more);
        Ok(())
    }

    async fn pause(&self, Kind { kind, why }: &Kind, output: Output) -> anyhow::Result<()> {
        named(&self.queues().await?, kind)?;
        let request = v1::PauseQueueRequest { idempotency_key: key(), kind: kind.to_owned(), reason: why.said() };
        let changed = self.said(self.client.pause_queue(self.request(request)).await)?.changed;
        ensure!(changed, "{kind} was paused already: nothing was done");
        output.record(&json!({ "kind": kind, "changed": changed }), &[(kind, "paused".to_owned())]);
        Ok(())
    }

    async fn resume(&self, Kind { kind, why }: &Kind, output: Output) -> anyhow::Result<()> {
        named(&self.queues().await?, kind)?;
        let request = v1::ResumeQueueRequest { idempotency_key: key(), kind: kind.to_owned(), reason: why.said() };
        let changed = self.said(self.client.resume_queue(self.request(request)).await)?.changed;
        ensure!(changed, "{kind} was not paused: nothing was done");
        output.record(&json!({ "kind": kind, "changed": changed }), &[(kind, "resumed".to_owned())]);
        Ok(())
    }

    /// One job, and what follows from its end.
    pub(crate) async fn get_job(&self, job_id: &str) -> anyhow::Result<v1::GetJobResponse> {
        let request = v1::GetJobRequest { job_id: job_id.to_owned() };
        self.said(self.client.get_job(self.request(request)).await)
    }

    async fn job(&self, job_id: &str, output: Output) -> anyhow::Result<()> {
        jobs::show(&self.get_job(job_id).await?, output);
        Ok(())
    }

    async fn cancel(&self, Cancel { job_id, yes, why }: &Cancel, output: Output) -> anyhow::Result<()> {
        let consequence = if *yes { String::new() } else { self.get_job(job_id).await?.consequence };
        if !consequence.is_empty() {
            bail!("this would cancel {job_id}: {consequence}; give --yes to do it");
        }
        let request = v1::CancelJobRequest { idempotency_key: key(), job_id: job_id.clone(), reason: why.said() };
        let was_queued = self.said(self.client.cancel_job(self.request(request)).await)?.buried;
        let said = if was_queued { "it was queued, and is dead now" } else { "it is running, and was asked to stop" };
        output.record(&json!({ "job_id": job_id, "buried": was_queued }), &[(job_id, said.to_owned())]);
        Ok(())
    }
}

/// The queue of that name.
fn named<'q>(queues: &'q [v1::Queue], kind: &str) -> anyhow::Result<&'q v1::Queue> {
    let names: Vec<_> = queues.iter().map(|queue| queue.kind.as_str()).collect();
    let unknown = || Refused::not_found(names::unknown("queue", kind, &names)).into();
    queues.iter().find(|queue| queue.kind == kind).ok_or_else(unknown)
}

/// The columns of [`as_row`].
const HEADER: [&str; 12] = [
    "kind",
    "state",
    "waiting",
    "scheduled",
    "running",
    "workers",
    "dead",
    "faulty",
    "exhausted",
    "oldest",
    "mean",
    "needs",
];

fn as_json(queue: &v1::Queue) -> Value {
    json!({
        "kind": queue.kind, "registered": queue.registered, "paused_at": optional_time(queue.paused_at.as_ref()),
        "paused_by": queue.paused_at.map(|_| queue.paused_by.clone()), "waiting": queue.waiting,
        "waiting_is_estimated": queue.waiting_is_estimated, "scheduled": queue.scheduled, "running": queue.running,
        "workers": queue.workers, "dead": queue.dead, "oldest_age_ms": queue.oldest_age_ms, "mean_ms": queue.mean_ms,
        "needed_concurrency": queue.needed_concurrency, "standstill": jobs::none_if_empty(&queue.standstill),
        "faulty": queue.faulty, "exhausted": queue.exhausted,
    })
}

fn as_row(queue: &v1::Queue) -> Vec<String> {
    let state = match (&queue.paused_at, queue.registered) {
        (Some(at), _) => format!("paused by {} at {}", queue.paused_by, time(Some(at))),
        (None, _) if !queue.standstill.is_empty() => "stands still".to_owned(),
        (None, true) => "open".to_owned(),
        (None, false) => "unknown kind".to_owned(),
    };
    let about = if queue.waiting_is_estimated { "≈" } else { "" };
    let mean = if queue.mean_ms > 0.0 { format!("{:.1} ms", queue.mean_ms) } else { "-".to_owned() };
    vec![
        queue.kind.clone(),
        state,
        format!("{about}{}", queue.waiting),
        queue.scheduled.to_string(),
        queue.running.to_string(),
        queue.workers.to_string(),
        queue.dead.to_string(),
        queue.faulty.to_string(),
        queue.exhausted.to_string(),
        if queue.waiting > 0 { age(queue.oldest_age_ms) } else { "-".to_owned() },
        mean,
        queue.needed_concurrency.to_string(),
    ]
}
