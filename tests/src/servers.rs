//! The servers of this run, as `cargo xtask test` hands them over.
use std::{env, path::PathBuf};

/// Where they are, with an administrator's rights.
#[derive(Debug, Clone)]
pub struct Servers {
    /// Without a database's name.
    pub postgres: String,
    /// The migrated database that each test's is cloned from.
    pub template: String,
    /// Without a vhost's name.
    pub amqp: String,
    /// RabbitMQ's management API.
    pub rabbitmq_api: String,
    /// Shared; tests differ by key prefix.
    pub redis: String,
    /// True if tests are to find every form of everything, as while a change of the schema is under way.
    pub is_expanded: bool,
    /// The words of RabbitMQ's command line, where somebody said so.
    pub rabbitmqctl: Option<Vec<String>>,
    /// Where PostgreSQL finds a disk that may be filled, where there is one.
    pub small_disk: Option<String>,
    /// Where the last release's programs are, if they are to run beside these.
    pub last_release: Option<PathBuf>,
}

impl Servers {
    /// From the environment.
    ///
    /// # Panics
    /// When the variables are not set: then the tests were not started by `cargo xtask test`.
    pub fn of_this_run() -> Self {
        Self {
            postgres: variable("GAVEL_TEST_POSTGRES_URL"),
            template: variable("GAVEL_TEST_TEMPLATE"),
            amqp: variable("GAVEL_TEST_AMQP_URL"),
            rabbitmq_api: variable("GAVEL_TEST_RABBITMQ_API_URL"),
            redis: variable("GAVEL_TEST_REDIS_URL"),
            is_expanded: env::var("GAVEL_TEST_SCHEMA").is_ok_and(|schema| schema == "expanded"),
            rabbitmqctl: env::var("GAVEL_TEST_RABBITMQCTL")
                .ok()
                .map(|words| serde_json::from_str(&words).expect("GAVEL_TEST_RABBITMQCTL is a list of words, as JSON")),
            small_disk: env::var("GAVEL_TEST_SMALL_DISK").ok(),
            last_release: env::var_os("GAVEL_TEST_LAST_RELEASE").map(PathBuf::from),
        }
    }
}

/// A variable that `cargo xtask test` sets.
pub fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run the tests with `cargo xtask test`"))
}

/// `host:port` of a URL, whatever stands before it.
pub fn host_of(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split('/').next().unwrap_or(rest);
    rest.rsplit('@').next().unwrap_or(rest).to_owned()
}
