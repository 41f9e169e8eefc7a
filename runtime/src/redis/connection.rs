//! The connection to Redis, and whether it may be read.
//!
//! A server that takes no writes is not the one: it was demoted, it is full, it can't save, it is loading. What it
//! holds is of some time ago and nobody moves it forward, so it is not read either, and the next connection may lead to
//! another.
#![expect(clippy::disallowed_types, reason = "it is the adapter")]
use crate::{
    Class, Error, Result,
    base::{
        boundary::{Operation, crossing},
        tls,
    },
    config::Backends,
};
use anyhow::Context;
use redis::{
    Client, RedisError, RedisResult, TlsCertificates,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use secrecy::ExposeSecret;
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A cache that takes longer than this is worse than none.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(250);
/// After a write that it did not take, it is not read for this long. Whoever looks after it tries again meanwhile.
const OFF_FOR: Duration = Duration::from_secs(3);
/// Connections are made anew no more often.
const RENEW_AFTER: Duration = Duration::from_millis(500);

/// See the module.
pub(super) struct Link {
    client: Client,
    state: Mutex<State>,
}

struct State {
    connection: ConnectionManager,
    made_at: Instant,
    /// Until when it is not read, and why.
    off: Option<(Instant, &'static str)>,
}

impl Link {
    pub(super) fn lazy(backends: &Backends) -> anyhow::Result<Self> {
        let (url, authorities) = (backends.redis_url.expose_secret(), backends.authorities.as_ref());
        let client = if url.starts_with("rediss:") {
            tls::choose_provider();
            let root_cert = authorities.map(|pem| pem.clone().into_bytes());
            Client::build_with_tls(url, TlsCertificates { client_tls: None, root_cert })
        } else {
            Client::open(url)
        };
        let client = client.context("REDIS_URL, or GAVEL_BACKEND_CACERT, can't be read")?;
        let connection = connect(&client)?;
        Ok(Self { client, state: Mutex::new(State { connection, made_at: Instant::now(), off: None }) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the connection, within the time that a cache has.
    pub(super) async fn run<T>(
        &self,
        (handler, verb): (&'static str, &'static str),
        command: impl AsyncFnOnce(&mut ConnectionManager) -> RedisResult<T>,
    ) -> Result<T> {
        let mut connection = self.state().connection.clone();
        // The library's own time-outs add up over reconnects; this one bounds the whole.
        let done = async { tokio::time::timeout(RESPONSE_TIMEOUT * 2, command(&mut connection)).await };
        match crossing(handler, Operation::Cache(verb), done).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(self.trouble(error)),
            Err(_) => Err(Error::new(Class::Unavailable, "the cache does not answer")),
        }
    }

    /// Checks that it may be read now.
    pub(super) fn readable(&self) -> Result<()> {
        match self.state().off {
            Some((until, why)) if until > Instant::now() => Err(Error::new(Class::Unavailable, why)),
            _ => Ok(()),
        }
    }

    fn trouble(&self, error: RedisError) -> Error {
        let (why, demand) = match error.code() {
            Some("READONLY" | "MASTERDOWN") => ("the cache is a replica, and takes no writes", Demand::Another),
            Some("LOADING") => ("the cache is loading", Demand::Another),
            Some("OOM") => ("the cache is full, and takes no writes", Demand::Off),
            Some("MISCONF" | "NOREPLICAS") => ("the cache takes no writes: it can't keep them", Demand::Off),
            Some("NOAUTH" | "WRONGPASS" | "NOPERM") => ("the cache refuses this user", Demand::Another),
            // Something else is stored under our key: waiting does not help.
            Some("WRONGTYPE") => return Error::internal(error),
            _ => ("the cache does not answer", Demand::Nothing),
        };
        if demand != Demand::Nothing {
            self.turn_off(why, demand == Demand::Another);
        }
        Error::new(Class::Unavailable, why).with_source(error)
    }

    fn turn_off(&self, why: &'static str, renew: bool) {
        let mut state = self.state();
        let now = Instant::now();
        state.off = Some((now + OFF_FOR, why));
        if renew && state.made_at.elapsed() > RENEW_AFTER {
            // Its address may lead to another server by now; this connection never will.
            match connect(&self.client) {
                Ok(connection) => (state.connection, state.made_at) = (connection, now),
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "no other connection to the cache can be made");
                }
            }
        }
    }
}

/// What an error asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Demand {
    Nothing,
    /// Not to read from there.
    Off,
    /// That, and another connection.
    Another,
}

fn connect(client: &Client) -> anyhow::Result<ConnectionManager> {
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(RESPONSE_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT))
        .set_number_of_retries(1)
        .set_min_delay(Duration::from_millis(20))
        .set_max_delay(Duration::from_millis(200));
    Ok(ConnectionManager::new_lazy_with_config(client.clone(), config)?)
}
