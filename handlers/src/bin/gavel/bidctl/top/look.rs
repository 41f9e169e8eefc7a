//! One look at some processes, of which each may be silent: it is restarted, or its machine is gone.
use super::sampled::Sampled;
use anyhow::{Context, bail};
use std::time::{Duration, Instant};

/// A process says at once how it is, or it is of no use here.
const PATIENCE: Duration = Duration::from_secs(3);

/// What each said, in their order, or why it did not.
pub(super) struct Look {
    at: Instant,
    said: Vec<Result<String, String>>,
}

impl Look {
    pub(super) async fn at(client: &reqwest::Client, addresses: &[String]) -> Self {
        let asked = addresses
            .iter()
            .map(|address| async move { metrics(client, address).await.map_err(|error| format!("{error:#}")) });
        let said = futures_util::future::join_all(asked).await;
        Self { at: Instant::now(), said }
    }

    /// Why each of those did not answer that did not.
    pub(super) fn silent(&self) -> impl Iterator<Item = &String> {
        self.said.iter().filter_map(|said| said.as_ref().err())
    }

    /// Itself, where there is anything to be seen.
    pub(super) fn answered(self) -> anyhow::Result<Self> {
        if self.said.iter().any(Result::is_ok) {
            return Ok(self);
        }
        bail!("{}", self.silent().cloned().collect::<Vec<_>>().join("; "))
    }

    /// Two looks at those that answered both times: what is only in one of them has not grown.
    pub(super) fn both(before: &Self, now: &Self) -> anyhow::Result<(Sampled, Sampled)> {
        let pairs = before.said.iter().zip(&now.said);
        let answered = pairs.filter_map(|(before, now)| Some((before.as_ref().ok()?, now.as_ref().ok()?)));
        let (earlier, later): (Vec<_>, Vec<_>) = answered.unzip();
        let parse = |at, texts: &[&String]| Sampled::parse(at, texts).context("these are no metrics");
        Ok((parse(before.at, &earlier)?, parse(now.at, &later)?))
    }
}

async fn metrics(client: &reqwest::Client, address: &str) -> anyhow::Result<String> {
    let url = format!("{}/metrics", address.trim_end_matches('/'));
    let asked = client.get(&url).timeout(PATIENCE).send().await.and_then(reqwest::Response::error_for_status);
    let reply = asked.with_context(|| format!("{url} does not answer"))?;
    reply.text().await.with_context(|| format!("{url} does not end its answer"))
}
