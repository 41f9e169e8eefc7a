//! A request's body over HTTP/1.1, where what is left of it stands in the way of everything else on its connection.
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, combinators::BoxBody};
use poem::http::{Request, Version, header::EXPECT};
use std::{
    io, mem,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::runtime::Handle;

/// How much of a body nobody wants is taken all the same, in bytes: a client in the middle of sending it would otherwise find
/// its connection reset, and might never see its answer.
const LINGERING_BYTES: usize = 1_024 * 1_024;
const LINGERING_TIME: Duration = Duration::from_secs(5);

type Incoming = BoxBody<Bytes, io::Error>;

/// Whether some of a request is still to come.
pub(super) struct Unread(Arc<AtomicBool>);

impl Unread {
    pub(super) fn is_left(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// Has the request say how far it was read. None for HTTP/2, where no call is in another's way.
pub(super) fn watched(request: Request<Incoming>) -> (Request<Incoming>, Option<Unread>) {
    if request.version() == Version::HTTP_2 {
        return (request, None);
    }
    let unread = Arc::new(AtomicBool::new(!request.body().is_end_stream()));
    // Who waits to be asked for the body sends none after an answer.
    let lingers = !request.headers().contains_key(EXPECT);
    let request = request.map(|body| Reading { body, unread: unread.clone(), lingers }.boxed());
    (request, Some(Unread(unread)))
}

struct Reading {
    body: Incoming,
    unread: Arc<AtomicBool>,
    lingers: bool,
}

impl Body for Reading {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() || self.body.is_end_stream() {
            self.unread.store(false, Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if !self.lingers || !self.unread.load(Relaxed) {
            return;
        }
        let Ok(tokio) = Handle::try_current() else { return };
        // It ends with its connection, and soon in any case.
        tokio.spawn(tokio::time::timeout(LINGERING_TIME, discard(mem::take(&mut self.body))));
    }
}

/// Takes what still comes, as far as that goes.
async fn discard(mut body: Incoming) {
    let mut left = LINGERING_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let taken = frame.data_ref().map_or(0, Bytes::len);
        let Some(still) = left.checked_sub(taken) else { return };
        left = still;
    }
}
