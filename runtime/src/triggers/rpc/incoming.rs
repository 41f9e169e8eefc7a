//! What a call brings along besides its message.
use crate::{
    Class, Error, Invocation, Result, Runtime,
    base::{
        Access, Caller,
        client::ClientNetwork,
        invocation::{CORRELATION_HEADER, TRACEPARENT_HEADER},
        spec::Spec,
    },
    postgres::receipt::CallKey,
};
use bytes::Bytes;
use poem::http::HeaderMap;
use prost::Message;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::time::{Duration, Instant};

/// Who calls, under which ids, until when.
pub(crate) struct Incoming {
    pub(crate) invocation: Invocation,
    pub(super) token: Token,
    /// Where it comes from.
    pub(super) client: ClientNetwork,
    /// When the client will have stopped waiting, if it said so.
    pub(super) client_deadline: Option<Instant>,
}

impl Incoming {
    /// Reads a call's headers. `deadline` is what the client asked for.
    pub(crate) fn of(
        runtime: &Runtime,
        spec: &Spec,
        (headers, client): (&HeaderMap, ClientNetwork),
        deadline: Option<Instant>,
    ) -> Self {
        let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let left = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(Instant::now()));
        let check = || runtime.admission().rates.check_of_token(client);
        let caller = runtime.verifier().map_or(Ok(None), |verifier| verifier.caller(header("authorization"), check));
        let timeout = left.min(spec.limits.timeout);
        let mut invocation =
            Invocation::continuing(spec.name, header(CORRELATION_HEADER), header(TRACEPARENT_HEADER), timeout);
        let token = Token(caller.map(|caller| invocation.caller = caller));
        Self { invocation, token, client, client_deadline: deadline }
    }

    /// As [`Token::admission`], for a call that changes something: there must be somebody, since receipts are kept per
    /// caller, and not too often.
    pub(super) fn somebody(&self, runtime: &Runtime, access: Access) -> Result<&Caller> {
        let nobody = || Error::new(Class::Unauthenticated, "a bearer token is required");
        let caller = self.token.admission(&self.invocation, access)?.ok_or_else(nobody)?;
        runtime.admission().rates.change(&caller.subject)?;
        Ok(caller)
    }
}

/// What was said of a call's token: if it is a good one, or there is none, the invocation knows its caller.
pub(super) struct Token(Result<()>);

impl Token {
    /// Returns who calls, if they may.
    pub(super) fn admission<'a>(&self, invocation: &'a Invocation, access: Access) -> Result<Option<&'a Caller>> {
        self.0.as_ref().map_err(|error| match access {
            Access::Public => error.again().with_hint("this call needs no token: leave it out, or send a good one"),
            _ => error.again(),
        })?;
        let caller = invocation.caller.as_ref();
        access.check(caller)?;
        Ok(caller)
    }
}

/// A message in protobuf; or why it can't be had, where it came in another encoding. A call that can't be read is a run
/// of its handler as any other: its caller is checked first, and it is logged and counted.
pub(crate) type Received = Result<Bytes>;

/// Reads a message.
pub(super) fn decode<M: Message + Default>(request: Received) -> Result<M> {
    M::decode(request?).map_err(|error| Error::invalid(format!("the request can't be read: {error}")))
}

/// Reads a request as far as to what it means.
pub(crate) type Read = fn(Bytes, &Caller) -> Result<()>;

/// See [`Read`].
pub(crate) fn read<M: Message + Default, T>(request: Bytes, parse: impl FnOnce(M) -> Result<T>) -> Result<()> {
    parse(decode(Ok(request))?).map(drop)
}

/// A request that changes something: which call it is, and the command that it means. Two spellings of one command are
/// one call.
pub(super) fn checked<M: Message, C: Serialize>(
    (spec, caller): (&Spec, &Caller),
    request: M,
    idempotency_key: impl FnOnce(&M) -> &str,
    parse: impl FnOnce(M, &Caller) -> Result<C>,
) -> Result<(CallKey, C)> {
    let given = idempotency_key(&request);
    let key = given.parse().map_err(|_| {
        Error::invalid(format!("idempotency_key {given:?} is not a UUID; allowed: one UUID per intent"))
    })?;
    let former = Sha256::digest(request.encode_to_vec()).into();
    let command = parse(request, caller)?;
    let intent = Sha256::digest(serde_json::to_vec(&command).map_err(Error::internal)?).into();
    Ok((CallKey { principal: caller.subject.clone(), operation: spec.name, key, intent, former }, command))
}
