//! Two releases on one database, and an operator.
use crate::bids::{
    client::Client,
    service::{Process, Releases},
};
use anyhow::{Context, bail};
use std::process::{Command, Output};

/// Connections to each service.
const CONNECTIONS: usize = 8;

/// Where a rehearsal takes place.
pub(crate) struct Stage<'a> {
    pub(crate) base: &'a str,
    pub(crate) out: &'a str,
    /// The last release's programs.
    pub(crate) old: Releases,
    /// This checkout's.
    pub(crate) new: Releases,
    pub(crate) rows: i64,
}

impl Stage<'_> {
    fn url(&self) -> String {
        format!("{}/rehearsal", self.base)
    }

    pub(crate) async fn service(&self, release: &Releases) -> anyhow::Result<Process> {
        self.start(release, "bid-service", &[]).await
    }

    pub(crate) async fn worker(&self, release: &Releases, arguments: &[&str]) -> anyhow::Result<Process> {
        self.start(release, "bid-worker", arguments).await
    }

    async fn start(&self, release: &Releases, program: &str, arguments: &[&str]) -> anyhow::Result<Process> {
        let (amqp, redis) = (variable("AMQP_URL")?, variable("REDIS_URL")?);
        let url = self.url();
        let variables = [("DATABASE_URL", url.as_str()), ("AMQP_URL", &amqp), ("REDIS_URL", &redis)];
        release.start(program, arguments, &variables).await
    }

    pub(crate) async fn connect(&self, service: &Process) -> anyhow::Result<Vec<Client>> {
        crate::bids::load::connect(&self.new, &service.address, CONNECTIONS).await
    }

    /// Runs a release's bidctl over the database itself.
    pub(crate) fn bidctl(&self, release: &Releases, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.output(release, arguments)?;
        let said = said(&output);
        if !output.status.success() {
            bail!("bidctl {}: {said}", arguments.join(" "));
        }
        Ok(said)
    }

    /// The same, where it is meant to refuse: what it says.
    pub(crate) fn refused(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.output(&self.new, arguments)?;
        if output.status.success() {
            bail!("bidctl {} was meant to refuse: {}", arguments.join(" "), said(&output));
        }
        Ok(said(&output))
    }

    /// As an operator, over a service.
    pub(crate) fn ops(&self, service: &Process, arguments: &[&str]) -> anyhow::Result<String> {
        let (url, token) = (format!("http://{}", service.ops_address), self.new.token_of("olga", "ops")?);
        self.bidctl(&self.new, &[arguments, &["--ops-url", &url, "--token", &token]].concat())
    }

    fn output(&self, release: &Releases, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut bidctl = Command::new(release.program("bidctl"));
        bidctl.args(arguments).env("DATABASE_URL", self.url()).env("USER", "rehearsal");
        tokio::task::block_in_place(|| bidctl.output()).context("bidctl can't be run")
    }
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn variable(name: &str) -> anyhow::Result<String> {
    std::env::var(name).with_context(|| format!("{name} is missing"))
}
