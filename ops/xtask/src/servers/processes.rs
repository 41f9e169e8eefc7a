//! One set of private server processes.
use super::{
    Child, Urls,
    layout::{Claimed, Layout},
    levers::{Levers, SmallDisk},
    postgres,
    rabbitmq::{self, RabbitMq},
    redis, secrets,
};
use crate::{
    install::{POSTGRESQL, RABBITMQ, REDIS, ensure},
    progress::Step,
};
use anyhow::anyhow;
use gavel_accounts::{Passwords, postgres::Role};
use std::thread;

/// The name of Gavel's database.
pub(crate) const DATABASE: &str = "gavel";

/// They stop, in this order, when dropped.
pub(crate) struct Processes {
    pub(crate) postgres: Child,
    pub(crate) rabbitmq: RabbitMq,
    pub(crate) redis: Child,
    pub(crate) urls: Urls,
    pub(crate) passwords: Passwords,
    small_disk: Option<SmallDisk>,
    pub(crate) layout: Claimed,
}

impl Processes {
    /// Installs what is missing and starts all three at once. What is not durable starts empty.
    pub(crate) fn start(layout: Claimed, durable: bool) -> anyhow::Result<Self> {
        ensure(&[POSTGRESQL, RABBITMQ, REDIS])?;
        if !durable {
            layout.wipe_data()?;
        }
        let passwords = secrets::passwords(&layout)?;
        let step = Step::begin("starting PostgreSQL, RabbitMQ and Redis");
        let (postgres, rabbitmq, redis) = thread::scope(|scope| {
            let postgres = scope.spawn(|| postgres::start(&layout, &passwords, durable));
            let rabbitmq = scope.spawn(|| rabbitmq::start(&layout, &passwords));
            let redis = redis::start(&layout, &passwords);
            let panicked = |_| anyhow!("a server's thread panicked");
            (postgres.join().map_err(panicked), rabbitmq.join().map_err(panicked), redis)
        });
        let urls = urls(&layout, &passwords);
        let started = Self {
            postgres: postgres??,
            rabbitmq: rabbitmq??,
            redis: redis?,
            urls,
            passwords: passwords.clone(),
            small_disk: None,
            layout,
        };
        step.done(format!(
            "PostgreSQL on port {}, RabbitMQ on {}, Redis on {}",
            started.layout.postgres_port(),
            started.layout.amqp_port(),
            started.layout.redis_port()
        ));
        Ok(started)
    }

    /// PostgreSQL finds a disk that may be filled, where there can be one.
    pub(crate) fn mount_small_disk(&mut self) -> anyhow::Result<()> {
        self.small_disk = SmallDisk::mount(&self.layout)?;
        Ok(())
    }

    /// What faults of whole servers are made with.
    pub(crate) fn levers(&self) -> Levers {
        let small_disk = self.small_disk.as_ref().map(|disk| disk.dir.display().to_string());
        Levers { rabbitmqctl: Some(rabbitmq::ctl(&self.layout)), small_disk }
    }

    /// Gavel's database, as a role reaches it.
    pub(crate) fn database_of(&self, role: Role) -> String {
        self.urls.database_of(role, &self.passwords, DATABASE)
    }

    /// PostgreSQL is away until it is started again.
    pub(crate) fn stop_postgres(&mut self) {
        self.postgres.stop();
    }

    /// It finds its data as they were.
    pub(crate) fn start_postgres_again(&mut self) -> anyhow::Result<()> {
        self.postgres = postgres::start(&self.layout, &self.passwords, false)?;
        Ok(())
    }

    /// Fails when one of them is gone.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        self.postgres.check()?;
        self.rabbitmq.child.check()?;
        self.redis.check()
    }
}

pub(super) fn urls(layout: &Layout, passwords: &Passwords) -> Urls {
    let at = |port: u16| format!("gavel:{}@127.0.0.1:{port}", passwords.administrator);
    Urls {
        postgres: format!("postgres://{}", at(layout.postgres_port())),
        amqp: format!("amqp://{}", at(layout.amqp_port())),
        rabbitmq_api: format!("http://{}", at(layout.rabbitmq_api_port())),
        redis: format!("redis://{}", at(layout.redis_port())),
    }
}
