//! One set of servers in containers.
use super::{
    Urls,
    levers::{Levers, SMALL_DISK_BYTES},
    rabbitmq::MAX_MESSAGE_BYTES,
};
use crate::{images, progress::Step};
use anyhow::Context;
use std::time::Duration;
use testcontainers::{
    Container, GenericImage, ImageExt,
    core::{IntoContainerPort, Mount, WaitFor},
    runners::SyncRunner,
};

const USER: &str = "gavel";
const SMALL_DISK: &str = "/small-disk";
const START_TIMEOUT: Duration = Duration::from_mins(3);

/// They are removed when dropped.
pub(crate) struct Containers {
    _postgres: Container<GenericImage>,
    rabbitmq: Container<GenericImage>,
    _redis: Container<GenericImage>,
    pub(crate) urls: Urls,
}

impl Containers {
    pub(crate) fn start() -> anyhow::Result<Self> {
        images::ensure()?;
        let step = Step::begin("starting containers for PostgreSQL, RabbitMQ and Redis");
        let rabbitmq = rabbitmq()?;
        let postgres = postgres()?;
        let redis = redis()?;
        let port = |container: &Container<GenericImage>, port: u16| -> anyhow::Result<String> {
            Ok(format!("{}:{}", container.get_host()?, container.get_host_port_ipv4(port.tcp())?))
        };
        let urls = Urls {
            postgres: format!("postgres://{USER}:{USER}@{}", port(&postgres, 5432)?),
            amqp: format!("amqp://{USER}:{USER}@{}", port(&rabbitmq, 5672)?),
            rabbitmq_api: format!("http://{USER}:{USER}@{}", port(&rabbitmq, 15672)?),
            redis: format!("redis://{}", port(&redis, 6379)?),
        };
        step.done("containers started");
        Ok(Self { _postgres: postgres, rabbitmq, _redis: redis, urls })
    }

    /// What faults of whole servers are made with.
    pub(crate) fn levers(&self) -> Levers {
        let rabbitmqctl = ["docker", "exec", self.rabbitmq.id(), "rabbitmqctl"].map(str::to_owned).into();
        Levers { rabbitmqctl: Some(rabbitmqctl), small_disk: Some(SMALL_DISK.to_owned()) }
    }
}

fn generic(image: &str) -> GenericImage {
    let (name, tag) = image.rsplit_once(':').unwrap_or((image, "latest"));
    GenericImage::new(name, tag)
}

/// The server announces itself twice: once while it is being set up, once for good.
fn postgres() -> anyhow::Result<Container<GenericImage>> {
    let ready = "database system is ready to accept connections";
    generic(&images::postgres())
        .with_exposed_port(5432.tcp())
        .with_wait_for(WaitFor::message_on_stdout("PostgreSQL init process complete"))
        .with_wait_for(WaitFor::message_on_stderr(ready))
        .with_mount(Mount::tmpfs_mount(SMALL_DISK).with_size_bytes(SMALL_DISK_BYTES.into()).with_mode(0o1777))
        .with_env_var("POSTGRES_USER", USER)
        .with_env_var("POSTGRES_PASSWORD", USER)
        .with_cmd(["postgres", "-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "max_connections=400"])
        .with_startup_timeout(START_TIMEOUT)
        .start()
        .context("the PostgreSQL container does not start")
}

fn rabbitmq() -> anyhow::Result<Container<GenericImage>> {
    generic(&images::rabbitmq())
        .with_exposed_port(5672.tcp())
        .with_exposed_port(15672.tcp())
        .with_wait_for(WaitFor::message_on_stdout("Server startup complete"))
        .with_env_var("RABBITMQ_DEFAULT_USER", USER)
        .with_env_var("RABBITMQ_DEFAULT_PASS", USER)
        // The management API makes a vhost per test.
        .with_copy_to("/etc/rabbitmq/enabled_plugins", b"[rabbitmq_management].\n".to_vec())
        .with_copy_to("/etc/rabbitmq/conf.d/20-limit.conf", format!("max_message_size = {MAX_MESSAGE_BYTES}\n").into_bytes())
        .with_startup_timeout(START_TIMEOUT)
        .start()
        .context("the RabbitMQ container does not start")
}

fn redis() -> anyhow::Result<Container<GenericImage>> {
    generic(&images::redis())
        .with_exposed_port(6379.tcp())
        .with_wait_for(WaitFor::message_on_stdout("Ready to accept connections"))
        .with_startup_timeout(START_TIMEOUT)
        .start()
        .context("the Redis container does not start")
}
