//! From a method's name to its handler.
use super::{
    contract::{Contract, Contracts},
    errors::{headers, shown},
    refusal::Refusals,
};
use crate::{
    Class, Error, Result, Runtime,
    base::{
        call::{Call, Line},
        client::ClientNetwork,
        invocation::correlation_id,
        memo::OwnKeys,
        metadata::Metadata,
        spec::{DEFAULT_MAX_REQUEST, Spec},
    },
    triggers::rpc::{Entry, Incoming},
};
use bytes::Bytes;
use connectrpc::{
    CodecFormat, ConnectError, ConnectRpcBody, Dispatcher, EncodedBody, MethodDescriptor, Payload, RequestContext,
    dispatcher::{RequestStream, StreamingResult, UnaryResult},
};
use futures_util::StreamExt;
use poem::http::{HeaderMap, HeaderValue, Method as Verb, Request, Response, StatusCode, header::ALLOW};
use std::{collections::HashSet, sync::Arc};

/// The handlers of one process, by their methods.
pub(crate) struct Dispatch {
    runtime: Runtime,
    methods: OwnKeys<&'static str, Arc<Registered>>,
}

/// A method and its handler, to be led to. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Method {
    name: &'static str,
    registered: Option<Arc<Registered>>,
}

impl Method {
    /// A method that the contracts don't know was found at the start-up check.
    pub(crate) fn new(name: &'static str, spec: &'static Spec, contracts: &Contracts, entry: Entry) -> Self {
        let contract = contracts.get(name).cloned();
        let registered =
            contract.map(|contract| Arc::new(Registered { spec, contract, entry, refusals: Refusals::default() }));
        Self { name, registered }
    }
}

/// A method and its handler.
pub(super) struct Registered {
    spec: &'static Spec,
    contract: Contract,
    entry: Entry,
    refusals: Refusals,
}

impl Registered {
    /// Returns whether its handler wants to know how it was asked.
    pub(super) fn sees_call(&self) -> bool {
        self.spec.sees_call
    }

    /// Returns what a request is answered that is no call of this method.
    pub(super) fn no_call<B>(&self, request: &Request<B>) -> Option<Response<ConnectRpcBody>> {
        let is_read = self.contract.descriptor.idempotent && matches!(self.entry, Entry::Unary(_));
        let is_get = is_read && request.method() == Verb::GET;
        if request.method() != Verb::POST && !is_get {
            return Some(disallowed(if is_read { "GET, POST" } else { "POST" }));
        }
        // Of two messages one would be taken, and nobody could say which.
        let twice = given_twice(request.uri().query().filter(|_| is_get).unwrap_or_default())?;
        let refusal = ConnectError::invalid_argument(format!("the parameter {twice:?} is given twice; allowed: once"));
        Some(refusal.into_http_response(request.headers()))
    }

    /// The request in protobuf, where it is no larger than this method's may be.
    fn request(&self, request: Bytes, format: CodecFormat) -> Result<Bytes> {
        let (bytes, most) = (request.len(), self.spec.max_request);
        if bytes > most {
            let message = format!("the request has {bytes} bytes; allowed: {most}");
            return Err(Error::new(Class::Exhausted, message).with_metadata(Metadata::never_again()));
        }
        self.contract.request(request, format)
    }
}

/// Returns what goes beside a reply: what its handler says, and what the runtime does.
fn beside(told: Option<&Call>, metadata: Metadata) -> Metadata {
    let Some(told) = told else { return metadata };
    let mut own = told.metadata();
    own.headers.extend(metadata.headers);
    own.trailers.extend(metadata.trailers);
    own
}

/// The same of an error.
fn said(error: Error, told: Option<&Call>) -> Error {
    if told.is_none() {
        return error;
    }
    let metadata = beside(told, error.metadata().cloned().unwrap_or_default());
    error.with_metadata(metadata)
}

/// An answer, and what goes beside it.
fn answered<T>(body: T, correlation_id: &str, metadata: Metadata) -> connectrpc::Response<T> {
    let mut response = connectrpc::Response::new(body);
    response.headers = headers(correlation_id);
    response.headers.extend(metadata.headers);
    response.trailers = metadata.trailers;
    response
}

impl Dispatch {
    pub(crate) fn new(runtime: &Runtime) -> Self {
        Self { runtime: runtime.clone(), methods: OwnKeys::default() }
    }

    /// Leads to a method.
    pub(crate) fn add(&mut self, Method { name, registered }: Method) {
        if let Some(registered) = registered {
            self.methods.insert(name, registered);
        }
    }

    /// Of all methods' largest requests the largest, in bytes.
    pub(super) fn largest_request(&self) -> usize {
        self.methods.values().map(|method| method.spec.max_request).max().unwrap_or(DEFAULT_MAX_REQUEST)
    }

    /// The method at this path.
    pub(super) fn method(&self, path: &str) -> Option<&Registered> {
        self.methods.get(path).map(|method| &**method)
    }

    /// Returns what a call is answered for which there is no place. It need not be read.
    pub(super) fn refusal<B>(&self, method: &Registered, request: &Request<B>) -> Option<Response<ConnectRpcBody>> {
        let error = self.runtime.admission().refusal_unread(method.spec)?;
        Some(method.refusals.answer(&error, request.headers(), &correlation_id(request.headers())))
    }

    fn find(&self, path: &str, context: &RequestContext) -> Result<(Arc<Registered>, Incoming), ConnectError> {
        let method = self.methods.get(path).ok_or_else(|| unknown(path))?.clone();
        check_timeouts(context.headers())?;
        let deadline = match method.entry {
            Entry::Unary(_) => context.deadline(),
            // The default is none of the client's wishes, and a stream may last.
            Entry::Streaming(_) => context.deadline().filter(|_| names_timeout(context.headers())),
        };
        let client = context.extensions().get().copied().unwrap_or(ClientNetwork::NONE);
        let mut incoming = Incoming::of(&self.runtime, method.spec, (context.headers(), client), deadline);
        if method.spec.sees_call {
            let timeout = context.time_remaining().filter(|_| names_timeout(context.headers()));
            let line = context.extensions().get::<Line>().cloned();
            incoming.invocation.call = Some(Arc::new(Call::new(context.headers().clone(), line, timeout)));
        }
        Ok((method, incoming))
    }
}

/// One that can't be read would be taken for none.
fn check_timeouts(headers: &HeaderMap) -> Result<(), ConnectError> {
    for (name, digits, units) in [("grpc-timeout", 8, "HMSmun"), ("connect-timeout-ms", 10, "")] {
        let Some(value) = headers.get(name) else { continue };
        let number = match value.as_bytes() {
            [number @ .., unit] if units.as_bytes().contains(unit) => number,
            number if units.is_empty() => number,
            _ => &[],
        };
        if !(1..=digits).contains(&number.len()) || !number.iter().all(u8::is_ascii_digit) {
            let unit = if units.is_empty() { String::new() } else { format!(" and one of {units}") };
            let text = String::from_utf8_lossy(value.as_bytes());
            let message = format!("{name} is {text:?}; allowed: up to {digits} digits{unit}");
            return Err(ConnectError::invalid_argument(message));
        }
    }
    Ok(())
}

/// A parameter that is in the query more than once.
fn given_twice(query: &str) -> Option<&str> {
    let mut seen = HashSet::new();
    let mut names = query.split('&').map(|pair| pair.split_once('=').map_or(pair, |(name, _)| name));
    names.find(|name| !name.is_empty() && !seen.insert(*name))
}

fn names_timeout(headers: &HeaderMap) -> bool {
    headers.contains_key("grpc-timeout") || headers.contains_key("connect-timeout-ms")
}

/// Where there is no method: in the protocol that it was asked in; to anything else, not found.
pub(super) fn nowhere<B>(path: &str, request: &Request<B>) -> Response<ConnectRpcBody> {
    let is_call =
        request.method() == Verb::POST || request.uri().query().is_some_and(|query| query.contains("connect=v1"));
    if is_call {
        // Over plain HTTP, where the protocol has no frame of its own, a path that leads nowhere.
        return unknown(path).with_http_status(StatusCode::NOT_FOUND).into_http_response(request.headers());
    }
    plain(StatusCode::NOT_FOUND, "not found\n")
}

/// RFC 9110, 15.5.6: says what is allowed.
fn disallowed(allowed: &'static str) -> Response<ConnectRpcBody> {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<ConnectRpcBody> {
    let mut response = Response::new(ConnectRpcBody::Full(Bytes::from_static(text.as_bytes()).into()));
    *response.status_mut() = status;
    response
}

fn streams(spec: &Spec) -> ConnectError {
    let message =
        format!("{} is answered by a stream: ask in application/connect+json, connect+proto or grpc", spec.name);
    ConnectError::unimplemented(message)
}

fn unknown(path: &str) -> ConnectError {
    ConnectError::unimplemented(format!("there is no method {path}"))
}

impl Dispatcher for Dispatch {
    fn lookup(&self, path: &str) -> Option<MethodDescriptor> {
        self.methods.get(path).map(|method| method.contract.descriptor)
    }

    fn call_unary(&self, path: &str, context: RequestContext, request: Payload, format: CodecFormat) -> UnaryResult {
        let found = self.find(path, &context);
        Box::pin(async move {
            let (method, incoming) = found?;
            let Entry::Unary(call) = &method.entry else { return Err(streams(method.spec)) };
            let correlation_id = incoming.invocation.correlation_id.clone();
            let told = incoming.invocation.call.clone();
            let request = method.request(request.encoded()?, format);
            let reply = call(incoming, request).await;
            let encoded = reply.and_then(|reply| Ok((method.contract.reply(reply.message, format)?, reply.metadata)));
            let (message, metadata) = encoded.map_err(|error| shown(&said(error, told.as_deref()), &correlation_id))?;
            let metadata = beside(told.as_deref(), metadata.map(|metadata| *metadata).unwrap_or_default());
            Ok(answered(EncodedBody::from(message), &correlation_id, metadata))
        })
    }

    fn call_server_streaming(
        &self,
        path: &str,
        context: RequestContext,
        request: Bytes,
        format: CodecFormat,
    ) -> StreamingResult {
        let found = self.find(path, &context);
        Box::pin(async move {
            let (method, incoming) = found?;
            let Entry::Streaming(call) = &method.entry else {
                return Err(unknown(context.path().unwrap_or_default()));
            };
            let correlation_id = incoming.invocation.correlation_id.clone();
            let told = incoming.invocation.call.clone();
            let replies = call(incoming, method.request(request, format));
            let replies = replies.map_err(|error| shown(&said(error, told.as_deref()), &correlation_id))?;
            if let Some(told) = &told {
                told.opened().await;
            }
            let (contract, id) = (method.contract.clone(), correlation_id.clone());
            let encoded = replies.map(move |reply| {
                let reply = reply.and_then(|reply| contract.answer(&reply, format));
                reply.map(EncodedBody::from).map_err(|error| shown(&error, &id))
            });
            let encoded: connectrpc::EncodedStream = encoded.boxed();
            Ok(answered(encoded, &correlation_id, beside(told.as_deref(), Metadata::default())))
        })
    }

    fn call_client_streaming(&self, path: &str, _: RequestContext, _: RequestStream, _: CodecFormat) -> UnaryResult {
        let unknown = unknown(path);
        Box::pin(async move { Err(unknown) })
    }

    fn call_bidi_streaming(&self, path: &str, _: RequestContext, _: RequestStream, _: CodecFormat) -> StreamingResult {
        let unknown = unknown(path);
        Box::pin(async move { Err(unknown) })
    }
}
