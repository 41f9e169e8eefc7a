//! Operators' calls.
use crate::bidctl::{client, names, output::Output, refused::Refused, settings::Settings};
use anyhow::ensure;
use gavel_proto::v1;
use gavel_runtime::ids;
use poem_grpc::{Request, Response, Status};
use serde_json::json;

/// The most that one call retries or discards.
const MAX_SELECTED: i64 = 1_000;

/// A connection to the operators' listener, with an operator's token.
pub(crate) struct Ops<'a> {
    settings: &'a Settings,
    pub(crate) client: v1::OpsServiceClient,
    token: String,
}

impl<'a> Ops<'a> {
    pub(crate) fn new(settings: &'a Settings) -> anyhow::Result<Self> {
        let client = v1::OpsServiceClient::new(client::config_of(settings, &settings.ops_url)?);
        Ok(Self { settings, client, token: settings.operators_token()? })
    }

    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        client::request(message, Some(&self.token))
    }

    /// The reply, or what its user is told.
    pub(crate) fn said<T>(&self, reply: Result<Response<T>, Status>) -> anyhow::Result<T> {
        Ok(reply.map_err(|status| client::explained_of(self.settings, &self.settings.ops_url, &status))?.into_inner())
    }
}

impl Ops<'_> {
    /// Fails where there is no such queue: what it has none of would be a matter of its spelling.
    pub(crate) async fn check_queue(&self, kind: &str) -> anyhow::Result<()> {
        let queues = self.said(self.client.list_queues(self.request(v1::ListQueuesRequest {})).await)?.queues;
        known("queue", kind, &queues.iter().map(|queue| queue.kind.as_str()).collect::<Vec<_>>())
    }

    /// Fails where there is no such consumer.
    pub(crate) async fn check_consumer(&self, name: &str) -> anyhow::Result<()> {
        let all = self.said(self.client.list_handlers(self.request(v1::ListHandlersRequest {})).await)?.handlers;
        let consumers = all.iter().filter(|handler| handler.trigger == "message");
        known("consumer", name, &consumers.map(|handler| handler.name.as_str()).collect::<Vec<_>>())
    }
}

fn known(what: &str, name: &str, names: &[&str]) -> anyhow::Result<()> {
    if names.contains(&name) { Ok(()) } else { Err(Refused::not_found(names::unknown(what, name, names)).into()) }
}

/// A number of entries.
pub(crate) fn limit(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|limit| *limit > 0).ok_or_else(|| "allowed: a number from 1".to_owned())
}

/// A key of its own for each call.
pub(crate) fn key() -> String {
    ids::random().to_string()
}

/// What was done with those that were named.
#[derive(Default)]
pub(crate) struct Done {
    pub(crate) count: i64,
    /// Ids that are not there.
    pub(crate) missing: Vec<String>,
}

impl Done {
    /// Says what was done. Where some of it was not, or nothing, that is an error: after what was done is said.
    pub(crate) fn say(&self, what: &str, output: Output) -> anyhow::Result<()> {
        if self.count > 0 || output.json {
            output.record(&json!({ "count": self.count, "missing": self.missing }), &[(what, self.count.to_string())]);
        }
        ensure!(self.missing.is_empty(), "not there: {}", self.missing.join(", "));
        ensure!(self.count > 0, "there is none: nothing was done");
        Ok(())
    }
}

/// Calls until nothing is left, where all of a name are meant; gives how many there were.
pub(crate) async fn sum(all: bool, call: impl AsyncFn() -> anyhow::Result<Done>) -> anyhow::Result<Done> {
    let mut sum = Done::default();
    loop {
        let done = call().await?;
        sum.count += done.count;
        sum.missing.extend(done.missing);
        if !all || done.count < MAX_SELECTED {
            return Ok(sum);
        }
    }
}

/// Pages of at most this many are asked for.
pub(crate) const PAGE: i32 = 100;

/// Asks for pages until there are `limit` entries, or no more pages; says whether there are more entries.
pub(crate) async fn pages<T>(
    limit: usize,
    page: impl AsyncFn(String) -> anyhow::Result<(Vec<T>, String)>,
) -> anyhow::Result<(Vec<T>, bool)> {
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let (entries, next) = page(token).await?;
        all.extend(entries);
        if next.is_empty() || all.len() >= limit {
            let is_more = !next.is_empty() || all.len() > limit;
            all.truncate(limit);
            return Ok((all, is_more));
        }
        token = next;
    }
}
