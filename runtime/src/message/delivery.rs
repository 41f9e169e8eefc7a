//! A delivery, read from AMQP or on its way to the parking queue.
use crate::{
    Error, Invocation, Result,
    broker::Outgoing,
    ids,
    invocation::{CORRELATION_HEADER, TRACEPARENT_HEADER},
};
use lapin::{
    message::Delivery,
    types::{AMQPValue, ShortString},
};
use std::time::Duration;
use uuid::Uuid;

/// What a consumer needs of a delivery.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) message_id: Option<Uuid>,
    routing_key: String,
    message_type: String,
    correlation_id: Option<String>,
    traceparent: Option<String>,
    pub(crate) payload: Vec<u8>,
}

impl Received {
    pub(crate) fn of(delivery: &Delivery) -> Self {
        let properties = &delivery.properties;
        let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string);
        Self {
            message_id: text(properties.message_id()).and_then(|id| id.parse().ok()),
            routing_key: delivery.routing_key.to_string(),
            message_type: text(properties.kind()).unwrap_or_default(),
            correlation_id: header(delivery, CORRELATION_HEADER).or_else(|| text(properties.correlation_id())),
            traceparent: header(delivery, TRACEPARENT_HEADER),
            payload: delivery.data.clone(),
        }
    }

    /// A run of a handler that goes on with this message's ids.
    pub(crate) fn invocation(&self, timeout: Duration) -> Invocation {
        Invocation::continuing(self.correlation_id.as_deref(), self.traceparent.as_deref(), timeout)
    }

    /// The id that the inbox knows it by.
    pub(crate) fn id(&self) -> Result<Uuid> {
        self.message_id.ok_or_else(|| Error::invalid("the message has no id; allowed: a UUID as AMQP message-id"))
    }

    pub(crate) fn decode<M: prost::Message + Default>(&self) -> Result<M> {
        M::decode(&self.payload[..]).map_err(|error| Error::invalid(format!("the message can't be decoded: {error}")))
    }

    /// The same message for the parking queue, with who gave up on it and why.
    pub(crate) fn parked(&self, handler: &str, error: &Error) -> Outgoing {
        let mut why = error.to_string();
        why.truncate(why.floor_char_boundary(1_000));
        Outgoing {
            message_id: self.message_id.unwrap_or_else(ids::random),
            routing_key: self.routing_key.clone(),
            message_type: self.message_type.clone(),
            payload: self.payload.clone(),
            correlation_id: self.correlation_id.clone().unwrap_or_default(),
            traceparent: self.traceparent.clone().unwrap_or_default(),
            headers: vec![("x-parked-by", handler.to_owned()), ("x-parked-error", why)],
        }
    }
}

fn header(delivery: &Delivery, name: &str) -> Option<String> {
    match delivery.properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}
