//! What a handler may know of the call that it answers, and say beside its answer: headers, method, query, the client's
//! own time-out; headers and trailers of the answer. For handlers whose spec asks for it
//! ([`Spec::with_call`](crate::base::spec::Spec::with_call)): the others, as are most, pay nothing.
//!
//! ```
//! # use gavel_runtime::{Io, Result};
//! # async fn handle(io: &Io) -> Result<()> {
//! if let Some(call) = io.call() {
//!     let language = call.headers().get("accept-language");
//!     call.add_header("content-language", "en")?;
//! #   let _ = language;
//! }
//! # Ok(())
//! # }
//! ```
use super::metadata::Metadata;
use crate::{Error, Result};
use poem::http::{HeaderMap, HeaderName, HeaderValue};
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;

/// The way a call was asked. The edge puts it beside the request, for methods whose handlers want to know.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) is_get: bool,
    pub(crate) query: Option<String>,
}

/// A call on the wire.
#[derive(Debug)]
pub struct Call {
    headers: HeaderMap,
    line: Option<Line>,
    timeout: Option<Duration>,
    beside: Mutex<Metadata>,
    opened: Notify,
}

impl Call {
    pub(crate) fn new(headers: HeaderMap, line: Option<Line>, timeout: Option<Duration>) -> Self {
        Self { headers, line, timeout, beside: Mutex::default(), opened: Notify::new() }
    }

    /// The request's headers.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Returns whether it was asked by HTTP GET.
    pub fn is_get(&self) -> bool {
        self.line.as_ref().is_some_and(|line| line.is_get)
    }

    /// The query of the address that was asked, as it was written.
    pub fn query(&self) -> Option<&str> {
        self.line.as_ref()?.query.as_deref()
    }

    /// The time that the client gave the call, where it did. The invocation's deadline may be earlier.
    pub fn client_timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// Adds a header to the answer, whether that is a reply, an error or a stream. A stream's are sent with its first
    /// answer.
    ///
    /// # Errors
    /// A name or a value that is none.
    pub fn add_header(&self, name: &str, value: &str) -> Result<()> {
        append(&mut self.beside().headers, name, value)
    }

    /// Adds a trailer to the answer. A stream's have to be there with its first answer.
    ///
    /// # Errors
    /// A name or a value that is none.
    pub fn add_trailer(&self, name: &str, value: &str) -> Result<()> {
        append(&mut self.beside().trailers, name, value)
    }

    fn beside(&self) -> MutexGuard<'_, Metadata> {
        self.beside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns what goes beside the answer, as far as it was said.
    pub(crate) fn metadata(&self) -> Metadata {
        self.beside().clone()
    }

    /// A stream has an answer, or its end: nothing more goes beside it.
    pub(crate) fn open(&self) {
        self.opened.notify_one();
    }

    pub(crate) async fn opened(&self) {
        self.opened.notified().await;
    }
}

fn append(map: &mut HeaderMap, name: &str, value: &str) -> Result<()> {
    let wrong = |what| Error::internal(anyhow::anyhow!("{name:?}: {value:?} is no {what}"));
    let name = HeaderName::try_from(name).map_err(|_| wrong("header's name"))?;
    map.append(name, HeaderValue::from_str(value).map_err(|_| wrong("header's value"))?);
    Ok(())
}
