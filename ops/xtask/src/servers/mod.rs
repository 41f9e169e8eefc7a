//! PostgreSQL, RabbitMQ and Redis for development and tests: as private processes, or in containers.

pub(crate) mod containers;
pub(crate) mod layout;
pub(crate) mod processes;
pub(crate) mod secrets;

mod child;
mod postgres;
mod rabbitmq;
mod redis;

pub(crate) use child::Child;
use child::reap;
use gavel_accounts::Program;

/// A private PostgreSQL alone, one that flushes every commit.
pub(crate) fn start_postgres(layout: &layout::Layout) -> anyhow::Result<Child> {
    postgres::start(layout, &secrets::Secrets::of(layout)?, true)
}

/// How to reach one set of servers, as an administrator.
#[derive(Debug, Clone)]
pub(crate) struct Urls {
    /// Without a database's name.
    pub(crate) postgres: String,
    /// Without a vhost's name.
    pub(crate) amqp: String,
    /// RabbitMQ's management API, with its user.
    pub(crate) rabbitmq_api: String,
    /// With its user.
    pub(crate) redis: String,
}

impl Urls {
    pub(crate) fn database(&self, name: &str) -> String {
        format!("{}/{name}", self.postgres)
    }

    /// RabbitMQ's usual vhost, as a program's account reaches it.
    pub(crate) fn amqp_of(&self, program: Program, password: &str) -> String {
        format!("amqp://{}:{password}@{}/%2f", program.account(), host(&self.amqp))
    }

    /// Redis, as a program's account reaches it.
    pub(crate) fn redis_of(&self, program: Program, password: &str) -> String {
        format!("redis://{}:{password}@{}", program.account(), host(&self.redis))
    }
}

/// Of a URL, its host and port.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.rsplit_once('@').map_or(rest, |(_, host)| host)
}
