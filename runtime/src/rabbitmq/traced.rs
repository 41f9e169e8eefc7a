//! Events on their way to the broker, as spans of their traces.
use super::{Outgoing, PublishError};
use crate::telemetry::traces;
use std::{borrow::Cow, time::Instant};

/// Events that are being published.
pub(super) struct Sending<'a> {
    begun: Instant,
    given: &'a [Outgoing],
    /// The same, where they are traced with spans of their own.
    messages: Cow<'a, [Outgoing]>,
}

impl<'a> Sending<'a> {
    pub(super) fn of(given: &'a [Outgoing]) -> Self {
        let mut messages = Cow::Borrowed(given);
        for (place, message) in given.iter().enumerate() {
            if let Some(traceparent) = traces::leaving(&message.traceparent) {
                messages.to_mut()[place].traceparent = traceparent;
            }
        }
        Self { begun: Instant::now(), given, messages }
    }

    pub(super) fn messages(&self) -> &[Outgoing] {
        &self.messages
    }

    /// Those that arrived are told; the others go out again, with another span.
    pub(super) fn ended(&self, results: &[Result<(), PublishError>]) {
        let Cow::Owned(messages) = &self.messages else { return };
        for ((before, message), result) in self.given.iter().zip(messages).zip(results) {
            if result.is_ok() && before.traceparent != message.traceparent {
                let what = (message.message_id, message.routing_key.as_str());
                traces::left(what, &before.traceparent, &message.traceparent, self.begun);
            }
        }
    }
}
