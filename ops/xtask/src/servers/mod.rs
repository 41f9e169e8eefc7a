//! PostgreSQL, RabbitMQ and Redis for development and tests: as private processes, or in containers.

pub(crate) mod containers;
pub(crate) mod layout;
pub(crate) mod processes;

mod child;
mod postgres;
mod rabbitmq;
mod redis;

pub(crate) use child::Child;
use child::reap;

/// A private PostgreSQL alone, one that flushes every commit.
pub(crate) fn start_postgres(layout: &layout::Layout) -> anyhow::Result<Child> {
    postgres::start(layout, true)
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
    pub(crate) redis: String,
}

impl Urls {
    pub(crate) fn database(&self, name: &str) -> String {
        format!("{}/{name}", self.postgres)
    }
}
