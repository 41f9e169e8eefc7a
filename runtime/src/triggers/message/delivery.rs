//! A delivery, read from AMQP or on its way to the parking queue.
use crate::{
    Error, Invocation, Result,
    base::{
        ids,
        invocation::{CORRELATION_HEADER, TRACEPARENT_HEADER},
        spec::Spec,
    },
    rabbitmq::Outgoing,
};
use lapin::{
    message::Delivery,
    types::{AMQPValue, ShortString},
};
use uuid::Uuid;

/// The consumer that parked a message.
const PARKED_BY_HEADER: &str = "x-parked-by";
/// Why.
const PARKED_ERROR_HEADER: &str = "x-parked-error";
/// The contracts of the consumer, where it did not know what the message tells of.
const UNKNOWN_TO_HEADER: &str = "x-parked-unknown-to";
/// This parking's id, by which a second delivery is known.
const PARKED_ID_HEADER: &str = "x-parked-id";
/// The routing key a message was first published with.
const FIRST_KEY_HEADER: &str = "x-first-routing-key";

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
            // Sent back to its consumer, a message has come by its queue's name.
            routing_key: header(delivery, FIRST_KEY_HEADER).unwrap_or_else(|| delivery.routing_key.to_string()),
            message_type: text(properties.kind()).unwrap_or_default(),
            correlation_id: header(delivery, CORRELATION_HEADER).or_else(|| text(properties.correlation_id())),
            traceparent: header(delivery, TRACEPARENT_HEADER),
            payload: delivery.data.clone(),
        }
    }

    /// As if it had been delivered.
    pub(crate) fn by_hand(message_id: Uuid, message_type: String, payload: Vec<u8>) -> Self {
        Self {
            message_id: Some(message_id),
            routing_key: String::new(),
            message_type,
            correlation_id: None,
            traceparent: None,
            payload,
        }
    }

    /// A run of a handler that goes on with this message's ids.
    pub(crate) fn invocation(&self, spec: &Spec) -> Invocation {
        Invocation::continuing(
            spec.name,
            self.correlation_id.as_deref(),
            self.traceparent.as_deref(),
            spec.limits.timeout,
        )
    }

    /// The id that the inbox knows it by.
    pub(crate) fn id(&self) -> Result<Uuid> {
        self.message_id.ok_or_else(|| Error::invalid("the message has no id; allowed: a UUID as AMQP message-id"))
    }

    /// Reads the message. Bytes of one type can be read as another, and mean something else: so the type is what
    /// counts.
    pub(crate) fn decode<M: prost::Name + Default>(&self) -> Result<M> {
        let (given, expected) = (&self.message_type, M::full_name());
        if *given != expected {
            return Err(Error::unknown(format!("a message of type {given:?}; allowed: {expected}")));
        }
        M::decode(&self.payload[..]).map_err(|error| Error::invalid(format!("the message can't be decoded: {error}")))
    }

    /// The same message for the parking queue, with who gave up on it and why.
    pub(crate) fn parked(&self, handler: &str, error: &Error, contracts: &str) -> Outgoing {
        let mut headers = vec![
            (PARKED_BY_HEADER, handler.to_owned()),
            (PARKED_ERROR_HEADER, why(error)),
            (PARKED_ID_HEADER, ids::ordered().to_string()),
        ];
        if error.is_unknown() {
            headers.push((UNKNOWN_TO_HEADER, contracts.to_owned()));
        }
        Outgoing {
            message_id: self.message_id.unwrap_or_else(ids::random),
            routing_key: self.routing_key.clone(),
            message_type: self.message_type.clone(),
            payload: self.payload.clone(),
            correlation_id: self.correlation_id.clone().unwrap_or_default(),
            traceparent: self.traceparent.clone().unwrap_or_default(),
            headers,
        }
    }
}

/// Returns what is kept of the error that a message is parked for.
pub(super) fn why(error: &Error) -> String {
    let mut why = text(&error.to_string());
    why.truncate(why.floor_char_boundary(1_000));
    why
}

/// Without what PostgreSQL can't keep in a text.
fn text(text: &str) -> String {
    text.replace('\0', "")
}

/// A message from the parking queue: parked by a handler, or dead-lettered by the broker itself.
#[derive(Debug, Clone)]
pub(crate) struct ParkedDelivery {
    pub(crate) parked_id: Uuid,
    pub(crate) handler: String,
    pub(crate) message_id: String,
    pub(crate) message_type: String,
    pub(crate) routing_key: String,
    pub(crate) correlation_id: String,
    pub(crate) traceparent: String,
    pub(crate) error: String,
    pub(crate) unknown_to: Vec<String>,
    pub(crate) payload: Vec<u8>,
}

impl ParkedDelivery {
    pub(crate) fn of(delivery: &Delivery) -> Self {
        let received = Received::of(delivery);
        let message_id = delivery.properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default();
        let parked_id = header(delivery, PARKED_ID_HEADER).and_then(|id| id.parse().ok()).unwrap_or_else(ids::ordered);
        // The broker names the queue, `app.handler`.
        let queue = header(delivery, "x-first-death-queue").unwrap_or_default();
        let handler = header(delivery, PARKED_BY_HEADER)
            .unwrap_or_else(|| queue.split_once('.').map_or(queue.clone(), |(_, handler)| handler.to_owned()));
        let error = header(delivery, PARKED_ERROR_HEADER).unwrap_or_else(|| {
            let reason = header(delivery, "x-first-death-reason").unwrap_or_default();
            format!("the broker gave up on it ({reason}): each consumer that took it died or lost its connection")
        });
        Self {
            parked_id,
            handler: text(&handler),
            message_id: text(&message_id),
            message_type: text(&received.message_type),
            routing_key: text(&received.routing_key),
            correlation_id: text(&received.correlation_id.unwrap_or_default()),
            traceparent: text(&received.traceparent.unwrap_or_default()),
            error: text(&error),
            unknown_to: header(delivery, UNKNOWN_TO_HEADER).as_deref().map(text).into_iter().collect(),
            payload: received.payload,
        }
    }
}

impl Received {
    /// As if a parked message had been delivered once more.
    pub(crate) fn of_parked(
        (message_id, routing_key, message_type): (&str, String, String),
        (correlation_id, traceparent): (String, String),
        payload: Vec<u8>,
    ) -> Self {
        Self {
            message_id: message_id.parse().ok(),
            routing_key,
            message_type,
            correlation_id: Some(correlation_id),
            traceparent: Some(traceparent),
            payload,
        }
    }
}

/// A parked message on its way back to its consumer.
pub(crate) fn returning(
    (message_id, routing_key, message_type): (String, String, String),
    (correlation_id, traceparent): (String, String),
    payload: Vec<u8>,
) -> Outgoing {
    Outgoing {
        // One without an id gets one: without, its consumer would refuse it whatever was mended.
        message_id: message_id.parse().unwrap_or_else(|_| ids::random()),
        headers: vec![(FIRST_KEY_HEADER, routing_key.clone())],
        routing_key,
        message_type,
        payload,
        correlation_id,
        traceparent,
    }
}

fn header(delivery: &Delivery, name: &str) -> Option<String> {
    match delivery.properties.headers().as_ref()?.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}
