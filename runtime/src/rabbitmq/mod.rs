//! RabbitMQ: what is declared, how it is published to, how it is consumed.
//!
//! Publishing and consuming use separate connections, because RabbitMQ blocks a publishing connection (acknowledgements
//! included) when memory or disk runs low. Recovery is not left to the client library: whoever finds a connection
//! broken builds a new one, declares everything again and goes on with what is unconfirmed.

mod channel;
mod consuming;
mod publish;
mod publisher;
mod topology;
mod traced;

pub use publisher::{Outgoing, PublishError, Publisher};
pub use topology::Topology;

pub(crate) use channel::{Channel, acknowledge};
pub(crate) use consuming::{Consuming, look};

use crate::{Class, Error, Result, config::Backends};
use lapin::{
    Connection, ConnectionProperties, runtime::default_runtime, tcp::OwnedTLSConfig, types::ShortString, uri::AMQPUri,
};
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;

/// A broker that does not answer within this time counts as down.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// A connection over which nothing comes for twice as long is dead, in seconds. The broker's own wish is a minute.
const HEARTBEAT_S: u16 = 10;

/// The broker is told at once; nobody waits for longer until it has heard.
const CLOSED_WITHIN: Duration = Duration::from_secs(1);

/// The way to reach the broker.
#[derive(Debug, Clone)]
pub(crate) struct BrokerUrl {
    url: SecretString,
    authorities: Option<String>,
}

impl BrokerUrl {
    pub(crate) fn of(backends: &Backends) -> Self {
        Self { url: backends.amqp_url.clone(), authorities: backends.authorities.clone() }
    }

    /// Connects once. `purpose` is the connection's name in RabbitMQ's tools.
    pub(crate) async fn connect(&self, purpose: &str) -> Result<Connection> {
        let properties = ConnectionProperties::default().with_connection_name(purpose.into());
        let unreadable =
            |error| Error::new(Class::Unavailable, "AMQP_URL can't be read").with_source(anyhow::Error::msg(error));
        let mut uri: AMQPUri = self.url.expose_secret().parse().map_err(unreadable)?;
        uri.query.heartbeat.get_or_insert(HEARTBEAT_S);
        let tls = OwnedTLSConfig { identity: None, cert_chain: self.authorities.clone() };
        let runtime = default_runtime().map_err(Error::internal)?;
        let connecting = Connection::connect_uri_with_config(uri, properties, tls, runtime);
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
        let late = |_| Error::new(Class::Unavailable, "RabbitMQ did not answer in time");
        let refused = |error: lapin::Error| {
            Error::new(Class::Unavailable, "RabbitMQ can't be reached, or refuses the connection").with_source(error)
        };
        connecting.map_err(late)?.map_err(refused)
    }
}

/// Closes the connection once what goes on over it has ended, and gives how that was. Also where it is given up: a call
/// that ran out of time may still reach the broker, which would then hand messages to a consumer that nobody listens to,
/// for as long as the connection is there.
pub(crate) async fn then_close(
    connection: &Connection,
    session: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let ended = session.await;
    let why = if ended.is_ok() { "drained" } else { "given up" };
    let closed = tokio::time::timeout(CLOSED_WITHIN, connection.close(200, short(why))).await;
    if let Ok(Err(error)) = closed {
        tracing::info!(%error, why, "the connection to RabbitMQ ended before it was closed");
    }
    ended
}

/// AMQP's short strings hold 255 bytes; what is longer is cut.
pub(crate) fn short(text: &str) -> ShortString {
    let mut end = text.len().min(255);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    ShortString::from(&text[..end])
}
