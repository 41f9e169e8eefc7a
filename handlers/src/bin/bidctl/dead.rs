//! Jobs that failed for good.
use crate::{
    client,
    jobs::{self, ERROR_WIDTH},
    output::{Output, cut, time},
    queue::key,
    settings::Settings,
    watch::Watch,
};
use anyhow::bail;
use clap::{Args, Subcommand};
use gavel_proto::v1;
use serde_json::json;

/// The most that one call takes.
const MAX_SELECTED: i64 = 1_000;
/// Entries of one page.
pub(crate) const PAGE: i32 = 100;

#[derive(Subcommand)]
pub(crate) enum Dead {
    /// List dead jobs, the newest first
    List(List),
    /// Show one with its arguments and the errors of its tries
    Show(Show),
    /// Queue dead jobs again, with all their tries
    Retry(Selection),
    /// Delete dead jobs for good
    Discard(Discard),
}

#[derive(Args)]
pub(crate) struct List {
    /// Only of this kind
    #[arg(long)]
    kind: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 20)]
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
pub(crate) struct Selection {
    /// Their ids
    #[arg(required_unless_present = "kind", conflicts_with = "kind", value_name = "JOB_ID")]
    job_ids: Vec<String>,
    /// All of this kind
    #[arg(long)]
    kind: Option<String>,
}

#[derive(Args)]
pub(crate) struct Discard {
    #[command(flatten)]
    which: Selection,
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
        let client = v1::OpsServiceClient::new(client::config(settings)?);
        let token = settings.token("ops")?;
        let (client, token) = (&client, token.as_str());
        match self {
            Self::List(list) => list.watch.run(output, |output| list.show(client, settings, token, output)).await,
            Self::Show(show) => {
                let request = v1::GetJobRequest { job_id: show.job_id.clone() };
                let reply = client.get_job(client::request(request, Some(token))).await;
                let job = reply.map_err(|status| client::explained(settings, &status))?.into_inner().job;
                jobs::show(&job.unwrap_or_default(), output);
                Ok(())
            }
            Self::Retry(which) => which.retry(client, settings, token, output).await,
            Self::Discard(discard) if discard.yes => discard.which.discard(client, settings, token, output).await,
            Self::Discard(discard) => {
                bail!("this would delete dead jobs for good: {}; give --yes to do it", discard.which.said())
            }
        }
    }
}

impl List {
    async fn show(
        &self,
        client: &v1::OpsServiceClient,
        settings: &Settings,
        token: &str,
        output: Output,
    ) -> anyhow::Result<()> {
        let (mut dead, mut page_token) = (Vec::new(), String::new());
        loop {
            let kind = self.kind.clone().unwrap_or_default();
            let request = v1::ListDeadJobsRequest { kind, page_size: PAGE, page_token };
            let reply = client.list_dead_jobs(client::request(request, Some(token))).await;
            let page = reply.map_err(|status| client::explained(settings, &status))?.into_inner();
            dead.extend(page.jobs);
            page_token = page.next_page_token;
            if page_token.is_empty() || dead.len() >= self.limit {
                break;
            }
        }
        dead.truncate(self.limit);
        let row = |job: &v1::Job| {
            let error = cut(&job.last_error, ERROR_WIDTH);
            vec![job.job_id.clone(), job.kind.clone(), job.tries.to_string(), time(job.at.as_ref()), error]
        };
        let rows: Vec<_> = dead.iter().map(row).collect();
        let json = json!({ "jobs": dead.iter().map(jobs::as_json).collect::<Vec<_>>() });
        output.table(&json, &["job", "kind", "tries", "died", "last error"], &rows);
        Ok(())
    }
}

impl Selection {
    async fn retry(
        &self,
        client: &v1::OpsServiceClient,
        settings: &Settings,
        token: &str,
        output: Output,
    ) -> anyhow::Result<()> {
        let call = async || {
            let (job_ids, kind) = (self.job_ids.clone(), self.kind.clone().unwrap_or_default());
            let request = v1::RetryDeadJobsRequest { idempotency_key: key(), job_ids, kind };
            let reply = client.retry_dead_jobs(client::request(request, Some(token))).await;
            Ok(reply.map_err(|status| client::explained(settings, &status))?.into_inner().count)
        };
        let sum = sum(self.kind.is_some(), call).await?;
        output.record(&json!({ "count": sum }), &[("queued again", sum.to_string())]);
        Ok(())
    }

    async fn discard(
        &self,
        client: &v1::OpsServiceClient,
        settings: &Settings,
        token: &str,
        output: Output,
    ) -> anyhow::Result<()> {
        let call = async || {
            let (job_ids, kind) = (self.job_ids.clone(), self.kind.clone().unwrap_or_default());
            let request = v1::DiscardDeadJobsRequest { idempotency_key: key(), job_ids, kind };
            let reply = client.discard_dead_jobs(client::request(request, Some(token))).await;
            Ok(reply.map_err(|status| client::explained(settings, &status))?.into_inner().count)
        };
        let sum = sum(self.kind.is_some(), call).await?;
        output.record(&json!({ "count": sum }), &[("discarded", sum.to_string())]);
        Ok(())
    }
}

/// Calls until nothing is left, where all of a name are meant; gives how many there were.
pub(crate) async fn sum(all: bool, call: impl AsyncFn() -> anyhow::Result<i64>) -> anyhow::Result<i64> {
    let mut sum = 0;
    loop {
        let count = call().await?;
        sum += count;
        if !all || count < MAX_SELECTED {
            return Ok(sum);
        }
    }
}
