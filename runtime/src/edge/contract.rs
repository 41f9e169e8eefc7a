//! What the contracts say of each method.
use super::json;
use crate::{Error, Result, triggers::rpc::Answer};
use anyhow::Context;
use bytes::Bytes;
use connectrpc::{CodecFormat, IdempotencyLevel, MethodDescriptor, MethodKind, Spec};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use std::{collections::BTreeMap, fmt};

/// All methods, by `package.Service/Method`.
pub(crate) struct Contracts(BTreeMap<String, Contract>);

/// One method's.
#[derive(Clone)]
pub(crate) struct Contract {
    pub(super) descriptor: MethodDescriptor,
    input: MessageDescriptor,
    output: MessageDescriptor,
}

impl Contracts {
    /// Reads an encoded `google.protobuf.FileDescriptorSet`.
    pub(crate) fn read(descriptors: &[u8]) -> anyhow::Result<Self> {
        let pool = DescriptorPool::decode(descriptors).context("the contracts' descriptor set can't be read")?;
        let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
        Ok(Self(methods.map(|method| (path_of(&method), Contract::of(&method))).collect()))
    }

    pub(crate) fn get(&self, method: &str) -> Option<&Contract> {
        self.0.get(method)
    }

    /// Every method's name.
    pub(crate) fn methods(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

fn path_of(method: &prost_reflect::MethodDescriptor) -> String {
    format!("{}/{}", method.parent_service().full_name(), method.name())
}

impl fmt::Display for Contract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a method that takes {}", self.input.full_name())
    }
}

impl Contract {
    fn of(method: &prost_reflect::MethodDescriptor) -> Self {
        let kind = match (method.is_client_streaming(), method.is_server_streaming()) {
            (false, false) => MethodKind::Unary,
            (false, true) => MethodKind::ServerStreaming,
            (true, false) => MethodKind::ClientStreaming,
            (true, true) => MethodKind::BidiStreaming,
        };
        let declared = method.method_descriptor_proto().options.as_ref().and_then(|options| options.idempotency_level);
        // google.protobuf.MethodOptions.IdempotencyLevel.
        let level = match declared {
            Some(1) => IdempotencyLevel::NoSideEffects,
            Some(2) => IdempotencyLevel::Idempotent,
            _ => IdempotencyLevel::Unknown,
        };
        // A handful of names, for the life of the process.
        let procedure: &'static str = Box::leak(format!("/{}", path_of(method)).into_boxed_str());
        let spec = Spec::server(procedure, kind.into()).with_idempotency_level(level);
        let descriptor =
            MethodDescriptor::from_kind(kind).with_idempotent(level == IdempotencyLevel::NoSideEffects).with_spec(spec);
        Self { descriptor, input: method.input(), output: method.output() }
    }

    /// Returns what differs between this and a handler with those messages and that kind of answer.
    pub(crate) fn differs(&self, request: &str, reply: &str, streams: bool) -> Option<String> {
        let kind = if streams { MethodKind::ServerStreaming } else { MethodKind::Unary };
        if self.descriptor.kind != kind {
            return Some(format!("the method is {:?}, the handler {kind:?}", self.descriptor.kind));
        }
        let (input, output) = (self.input.full_name(), self.output.full_name());
        let same = input == request && output == reply;
        (!same).then(|| format!("the method takes {input} and gives {output}, the handler {request} and {reply}"))
    }

    /// The request in protobuf, whatever it was written in.
    pub(crate) fn request(&self, request: Bytes, format: CodecFormat) -> Result<Bytes> {
        if format != CodecFormat::Json {
            return Ok(request);
        }
        let refuse =
            |why: String| Error::invalid(format!("the request is no JSON of {}: {why}", self.input.full_name()));
        let checked = json::checked(&request, &self.input).map_err(|wrong| refuse(wrong.to_string()))?;
        let mut json = serde_json::Deserializer::from_str(&checked);
        let message = DynamicMessage::deserialize(self.input.clone(), &mut json)
            .and_then(|message| json.end().map(|()| message))
            .map_err(|error| refuse(error.to_string()))?;
        Ok(message.encode_to_vec().into())
    }

    /// An answer of a stream in what the client reads, written once for all who read the same.
    pub(super) fn answer(&self, answer: &Answer, format: CodecFormat) -> Result<Bytes> {
        if format != CodecFormat::Json {
            return Ok(answer.protobuf.clone());
        }
        if let Some(json) = answer.json.get() {
            return Ok(json.clone());
        }
        let json = self.reply(answer.protobuf.clone(), format)?;
        Ok(answer.json.get_or_init(|| json).clone())
    }

    /// A reply in what the client reads.
    pub(super) fn reply(&self, reply: Bytes, format: CodecFormat) -> Result<Bytes> {
        if format != CodecFormat::Json {
            return Ok(reply);
        }
        let message = DynamicMessage::decode(self.output.clone(), reply).map_err(Error::internal)?;
        let mut json = serde_json::Serializer::new(Vec::new());
        message.serialize_with_options(&mut json, &SerializeOptions::new()).map_err(Error::internal)?;
        Ok(json.into_inner().into())
    }
}
