//! Publishing a batch over one channel, and what became of each of its messages.
use super::{Channel, short};
use crate::base::invocation::{CORRELATION_HEADER, TRACEPARENT_HEADER};
use lapin::{
    BasicProperties, Confirmation, ErrorKind,
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::{AMQPValue, FieldTable},
};
use std::collections::HashMap;
use uuid::Uuid;

/// A message to publish.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// AMQP message id.
    pub message_id: Uuid,
    /// Where to.
    pub routing_key: String,
    /// The protobuf message's full name, the AMQP type.
    pub message_type: String,
    /// The encoded message.
    pub payload: Vec<u8>,
    /// Goes into the header of that name and the AMQP correlation id.
    pub correlation_id: String,
    /// Goes into the header of that name.
    pub traceparent: String,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
}

/// Why a message is not known to be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The broker did not store it. The same again may work.
    #[error("the broker refused the message (nack)")]
    Refused,
    /// The broker takes no such message, ever: it closes the channel instead.
    #[error("the broker rejects the message: {0}")]
    Rejected(String),
    /// The broker took it, and no queue is bound for it.
    #[error("no queue is bound for the message: {0}")]
    Unroutable(String),
    /// No confirm came. The broker may have it.
    #[error("no confirm came: {0}")]
    Unconfirmed(String),
}

/// The fate of a batch.
pub(super) struct Published {
    /// Of each message.
    pub(super) results: Vec<Result<(), PublishError>>,
    /// The broker closed the channel over one of those without a confirm, and why: nobody knows which.
    pub(super) closed: Option<String>,
}

pub(super) async fn publish_over(channel: &Channel, exchange: &str, messages: &[&Outgoing]) -> Published {
    let mut confirms = Vec::with_capacity(messages.len());
    for message in messages {
        let to = (exchange, message.routing_key.as_str());
        confirms.push(channel.publish(to, &message.payload, properties(message)).await);
    }
    let mut returned: HashMap<String, String> = HashMap::new();
    let (mut results, mut closed) = (Vec::with_capacity(messages.len()), None);
    for confirm in confirms {
        let confirmation = match confirm {
            Ok(confirm) => channel.confirmed(confirm).await,
            Err(error) => Err(error),
        };
        if let Err(error) = &confirmation
            && closes_over_a_message(error)
        {
            closed.get_or_insert_with(|| error.to_string());
        }
        results.push(verdict(confirmation, &mut returned));
    }
    // A returned message may come attached to another message's confirm, so it is matched by its own id.
    for (message, result) in messages.iter().zip(&mut results) {
        if let Some(why) = returned.remove(&message.message_id.to_string()) {
            *result = Err(PublishError::Unroutable(why));
        }
    }
    Published { results, closed }
}

/// Returns whether the broker closed the channel for what a message is: larger than it takes, or with properties that
/// it refuses.
fn closes_over_a_message(error: &lapin::Error) -> bool {
    use AMQPSoftError::{CONTENTTOOLARGE, PRECONDITIONFAILED};
    let ErrorKind::ProtocolError(error) = error.kind() else { return false };
    matches!(error.kind(), AMQPErrorKind::Soft(CONTENTTOOLARGE | PRECONDITIONFAILED))
}

/// The three arms of a confirm; returned messages are kept by their id.
fn verdict(
    confirmation: lapin::Result<Confirmation>,
    returned: &mut HashMap<String, String>,
) -> Result<(), PublishError> {
    let (result, message) = match confirmation {
        Ok(Confirmation::Ack(message)) => (Ok(()), message),
        Ok(Confirmation::Nack(message)) => (Err(PublishError::Refused), message),
        Ok(Confirmation::NotRequested) => {
            return Err(PublishError::Unconfirmed("the channel is not in confirm mode".to_owned()));
        }
        Err(error) => return Err(PublishError::Unconfirmed(error.to_string())),
    };
    if let Some(message) = message {
        let id = message.delivery.properties.message_id().as_ref().map(ToString::to_string);
        returned.insert(id.unwrap_or_default(), message.reply_text.to_string());
    }
    result
}

fn properties(message: &Outgoing) -> BasicProperties {
    let mut headers = FieldTable::default();
    let mut put = |name: &str, value: &str| {
        headers.insert(name.into(), AMQPValue::LongString(value.into()));
    };
    put(CORRELATION_HEADER, &message.correlation_id);
    put(TRACEPARENT_HEADER, &message.traceparent);
    for (name, value) in &message.headers {
        put(name, value);
    }
    BasicProperties::default()
        .with_content_type("application/protobuf".into())
        .with_type(short(&message.message_type))
        .with_delivery_mode(2)
        .with_message_id(short(&message.message_id.to_string()))
        .with_correlation_id(short(&message.correlation_id))
        .with_headers(headers)
}
