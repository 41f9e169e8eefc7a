//! Operators' calls.
use crate::{client, settings::Settings};
use gavel_proto::v1;
use gavel_runtime::ids;
use poem_grpc::{Request, Response, Status};

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
        let client = v1::OpsServiceClient::new(client::config(&settings.ops_url)?);
        Ok(Self { settings, client, token: settings.token("ops")? })
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

/// Pages of at most this many are asked for.
pub(crate) const PAGE: i32 = 100;

/// Asks for pages until there are `limit` entries, or no more pages.
pub(crate) async fn pages<T>(
    limit: usize,
    page: impl AsyncFn(String) -> anyhow::Result<(Vec<T>, String)>,
) -> anyhow::Result<Vec<T>> {
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let (entries, next) = page(token).await?;
        all.extend(entries);
        if next.is_empty() || all.len() >= limit {
            all.truncate(limit);
            return Ok(all);
        }
        token = next;
    }
}
