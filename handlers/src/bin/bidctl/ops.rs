//! Operators' calls.
use crate::{client, output::Output, settings::Settings};
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
