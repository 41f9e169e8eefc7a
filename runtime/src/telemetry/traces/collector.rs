//! Sends what the exporter hands over, from this process's own tasks.
use crate::base::seldom::Seldom;
use bytes::Bytes;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use std::time::Duration;
use tokio::runtime::Handle;

/// A collector that takes longer has lost what it was sent.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A collector that is down is said so often.
const SAY_EVERY: Duration = Duration::from_mins(1);

/// The way to the collector.
#[derive(Debug)]
pub(super) struct Collector {
    client: reqwest::Client,
    /// The exporter has a thread of its own, where nothing asynchronous runs.
    tasks: Handle,
    unheard: Seldom,
}

impl Collector {
    /// Inside a tokio runtime.
    pub(super) fn new() -> anyhow::Result<Self> {
        let client = reqwest::Client::builder().timeout(TIMEOUT).build()?;
        Ok(Self { client, tasks: Handle::current(), unheard: Seldom::every(SAY_EVERY) })
    }

    /// What is lost is said, and not tried for ever: nobody waits for a trace.
    fn say(&self, why: &str) {
        if let Some(times) = self.unheard.count() {
            tracing::warn!(times, why, "traces are lost: the collector does not take them");
        }
    }
}

#[async_trait::async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answered = self.tasks.spawn(answer(self.client.clone(), request)).await?;
        match &answered {
            Ok(response) if response.status().is_success() => {}
            Ok(response) => self.say(response.status().as_str()),
            Err(error) => self.say(&format!("{error:#}")),
        }
        Ok(answered?)
    }
}

async fn answer(client: reqwest::Client, request: Request<Bytes>) -> anyhow::Result<Response<Bytes>> {
    let response = client.execute(request.try_into()?).await?;
    let status = response.status();
    let mut answer = Response::new(response.bytes().await?);
    *answer.status_mut() = status;
    Ok(answer)
}
