//! A Redis that can be demoted, filled and brought back.
use super::Dir;
use crate::{Process, eventually, gateway::free_port};
use redis::{Client, Cmd, FromRedisValue};
use std::process::Command;

/// See the module. Ends when dropped.
pub struct Redis {
    /// `redis://127.0.0.1:…`.
    pub url: String,
    _process: Process,
    _dir: Dir,
}

impl Redis {
    /// An empty one.
    pub async fn start() -> Self {
        let (dir, port) = (Dir::new("redis"), free_port().await);
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--dir"]).arg(&dir.0);
        let redis = Self { url: format!("redis://127.0.0.1:{port}"), _process: Process::spawn(command), _dir: dir };
        let answers = || async { redis.try_to::<String>(&redis::cmd("PING")).await.is_ok() };
        eventually("Redis answers", answers, |answers| *answers).await;
        redis
    }

    /// Makes it a replica of a server that there is not: it takes no writes, and holds what it held.
    pub async fn demote(&self) {
        self.set("replica-serve-stale-data", "yes").await;
        self.run(redis::cmd("REPLICAOF").arg("127.0.0.1").arg(1)).await;
    }

    /// Makes it take writes again.
    pub async fn promote(&self) {
        self.run(redis::cmd("REPLICAOF").arg("NO").arg("ONE")).await;
    }

    /// Sets one of its settings.
    pub async fn set(&self, name: &str, value: &str) {
        self.run(redis::cmd("CONFIG").arg("SET").arg(name).arg(value)).await;
    }

    async fn run(&self, command: &Cmd) {
        self.try_to::<String>(command).await.unwrap_or_else(|error| panic!("Redis refuses {command:?}: {error}"));
    }

    async fn try_to<T: FromRedisValue>(&self, command: &Cmd) -> redis::RedisResult<T> {
        let mut connection = Client::open(self.url.as_str())?.get_multiplexed_async_connection().await?;
        command.query_async(&mut connection).await
    }
}
