//! Jobs that failed for good.
use crate::bidctl::{
    jobs,
    ops::{Done, Ops, PAGE, key, limit, pages, sum},
    output::{Output, time},
    settings::Settings,
    watch::Watch,
    why::Why,
};
use anyhow::bail;
use clap::{Args, Subcommand};
use gavel_proto::v1;
use serde_json::json;
use std::collections::BTreeSet;

#[derive(Subcommand)]
pub(crate) enum Dead {
    /// List dead jobs, the newest first
    List(List),
    /// Show one with its arguments and the errors of its tries
    Show(Show),
    /// Queue dead jobs again, with all their tries
    Retry(Retry),
    /// Delete dead jobs for good
    Discard(Discard),
}

#[derive(Args)]
pub(crate) struct List {
    /// Only of this kind
    #[arg(long)]
    kind: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 20, value_parser = limit)]
    limit: usize,
    #[command(flatten)]
    watch: Watch,
}

#[derive(Args)]
pub(crate) struct Show {
    /// The job's id
    job_id: String,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Selection {
    /// Their ids
    #[arg(value_name = "JOB_ID")]
    job_ids: Vec<String>,
    /// All of this kind
    #[arg(long)]
    kind: Option<String>,
}

#[derive(Args)]
pub(crate) struct Retry {
    #[command(flatten)]
    which: Selection,
    #[command(flatten)]
    why: Why,
}

#[derive(Args)]
pub(crate) struct Discard {
    #[command(flatten)]
    which: Selection,
    #[command(flatten)]
    why: Why,
    /// Really: what is discarded is gone
    #[arg(long)]
    yes: bool,
}

impl Selection {
    fn said(&self) -> String {
        self.kind.as_ref().map_or_else(|| self.job_ids.join(", "), |kind| format!("all of kind {kind}"))
    }
}

impl Dead {
    pub(crate) async fn run(&self, settings: &Settings, output: Output) -> anyhow::Result<()> {
        let ops = &Ops::new(settings)?;
        match self {
            Self::List(list) => list.watch.run(output, |output| list.show(ops, output)).await,
            Self::Show(show) => {
                jobs::show(&ops.get_job(&show.job_id).await?, output);
                Ok(())
            }
            Self::Retry(retry) => retry.which.retry(ops, &retry.why, output).await,
            Self::Discard(discard) if discard.yes => discard.which.discard(ops, &discard.why, output).await,
            Self::Discard(discard) => {
                let consequence = discard.which.consequence(ops).await?;
                bail!(
                    "this would delete dead jobs for good: {}{consequence}; give --yes to do it",
                    discard.which.said()
                )
            }
        }
    }
}

impl List {
    async fn show(&self, ops: &Ops<'_>, output: Output) -> anyhow::Result<()> {
        let page = async |page_token| {
            let kind = self.kind.clone().unwrap_or_default();
            let request = v1::ListDeadJobsRequest { kind, page_size: PAGE, page_token };
            let page = ops.said(ops.client.list_dead_jobs(ops.request(request)).await)?;
            Ok((page.jobs, page.next_page_token))
        };
        let (dead, is_more) = pages(self.limit, page).await?;
        if let Some(kind) = self.kind.as_ref().filter(|_| dead.is_empty()) {
            ops.check_queue(kind).await?;
        }
        let row = |job: &v1::Job| {
            let error = job.last_error.clone();
            vec![job.job_id.clone(), job.kind.clone(), job.tries.to_string(), time(job.at.as_ref()), error]
        };
        let rows: Vec<_> = dead.iter().map(row).collect();
        let json = json!({ "jobs": dead.iter().map(jobs::as_json).collect::<Vec<_>>(), "more": is_more });
        output.table(&json, &["job", "kind", "tries", "died", "last error"], &rows);
        output.more(is_more);
        Ok(())
    }
}

impl Selection {
    /// Returns what follows from the end of those that are named, or of the newest of a kind.
    async fn consequence(&self, ops: &Ops<'_>) -> anyhow::Result<String> {
        let mut job_ids = self.job_ids.clone();
        if let Some(kind) = &self.kind {
            let request = v1::ListDeadJobsRequest { kind: kind.clone(), page_size: 1, page_token: String::new() };
            let page = ops.said(ops.client.list_dead_jobs(ops.request(request)).await)?;
            job_ids.extend(page.jobs.into_iter().map(|job| job.job_id));
        }
        let mut consequences = BTreeSet::new();
        for job_id in &job_ids {
            consequences.insert(ops.get_job(job_id).await?.consequence);
        }
        let consequences: Vec<_> = consequences.into_iter().filter(|one| !one.is_empty()).collect();
        Ok(if consequences.is_empty() { String::new() } else { format!("; {}", consequences.join("; ")) })
    }

    /// Where nothing was, the kind may be spelled wrong.
    async fn done(&self, ops: &Ops<'_>, done: Done) -> anyhow::Result<Done> {
        match &self.kind {
            Some(kind) if done.count == 0 => ops.check_queue(kind).await.map(|()| done),
            _ => Ok(done),
        }
    }

    async fn retry(&self, ops: &Ops<'_>, why: &Why, output: Output) -> anyhow::Result<()> {
        let call = async || {
            let (job_ids, kind) = (self.job_ids.clone(), self.kind.clone().unwrap_or_default());
            let request = v1::RetryDeadJobsRequest { idempotency_key: key(), job_ids, kind, reason: why.said() };
            let done = ops.said(ops.client.retry_dead_jobs(ops.request(request)).await)?;
            Ok(Done { count: done.count, missing: done.missing })
        };
        self.done(ops, sum(self.kind.is_some(), call).await?).await?.say("queued again", output)
    }

    async fn discard(&self, ops: &Ops<'_>, why: &Why, output: Output) -> anyhow::Result<()> {
        let call = async || {
            let (job_ids, kind) = (self.job_ids.clone(), self.kind.clone().unwrap_or_default());
            let request = v1::DiscardDeadJobsRequest { idempotency_key: key(), job_ids, kind, reason: why.said() };
            let done = ops.said(ops.client.discard_dead_jobs(ops.request(request)).await)?;
            Ok(Done { count: done.count, missing: done.missing })
        };
        self.done(ops, sum(self.kind.is_some(), call).await?).await?.say("discarded", output)
    }
}
