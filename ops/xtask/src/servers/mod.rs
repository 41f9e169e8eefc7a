//! PostgreSQL, RabbitMQ and Redis for development and tests: as private processes, or in containers.

#[cfg(feature = "containers")]
pub(crate) mod containers;
pub(crate) mod engine;
pub(crate) mod layout;
pub(crate) mod levers;
pub(crate) mod processes;
pub(crate) mod secrets;

mod child;
mod postgres;
mod rabbitmq;
mod reap;
mod redis;
mod signal;

pub(crate) use child::Child;
use gavel_accounts::{Passwords, Program, postgres::Role};

/// A private PostgreSQL alone, one that flushes every commit, and its URL without a database's name.
pub(crate) fn start_postgres(layout: &layout::Layout) -> anyhow::Result<(Child, String)> {
    let passwords = secrets::passwords(layout)?;
    let url = processes::urls(layout, &passwords).postgres;
    Ok((postgres::start(layout, &passwords, true)?, url))
}

/// The way to reach one set of servers, as an administrator.
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
    /// As tests are told of them, and as `--services urls` reads them.
    pub(crate) fn variables(&self) -> [(&'static str, String); 4] {
        [
            ("GAVEL_TEST_POSTGRES_URL", self.postgres.clone()),
            ("GAVEL_TEST_AMQP_URL", self.amqp.clone()),
            ("GAVEL_TEST_RABBITMQ_API_URL", self.rabbitmq_api.clone()),
            ("GAVEL_TEST_REDIS_URL", self.redis.clone()),
        ]
    }

    pub(crate) fn database(&self, name: &str) -> String {
        format!("{}/{name}", self.postgres)
    }

    /// A database, as a role reaches it.
    pub(crate) fn database_of(&self, role: Role, passwords: &Passwords, name: &str) -> String {
        let all = passwords.at_postgres();
        let password = all.iter().find(|(of, _)| *of == role).map_or("", |(_, password)| password);
        format!("postgres://{}:{password}@{}/{name}", role.account(), host(&self.postgres))
    }

    /// RabbitMQ's usual vhost, as a program's account reaches it.
    pub(crate) fn amqp_of(&self, program: Program, passwords: &Passwords) -> String {
        format!("amqp://{}:{}@{}/%2f", program.account(), passwords.of(program), host(&self.amqp))
    }

    /// Redis, as a program's account reaches it.
    pub(crate) fn redis_of(&self, program: Program, passwords: &Passwords) -> String {
        format!("redis://{}:{}@{}", program.account(), passwords.of(program), host(&self.redis))
    }
}

/// Of a URL, its host and port.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.rsplit_once('@').map_or(rest, |(_, host)| host)
}
