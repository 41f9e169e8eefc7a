//! A gRPC client that costs as little as one can: the machine is shared with what is measured.
use anyhow::{Context, bail};
use bytes::{BufMut, Bytes, BytesMut};
use gavel_proto::v1::{PlaceBidRequest, PlaceBidResponse};
use gavel_runtime::ids;
use h2::client::SendRequest;
use http::{
    HeaderMap, HeaderValue, Request, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE, TE},
};
use prost::Message;
use tokio::net::TcpStream;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// What `h2` takes for an attack by default is a few dozen answers that wait.
const DATA_FRAME_BUDGET: usize = 1 << 22;

/// What was answered.
#[derive(Debug)]
pub(crate) enum Reply {
    Accepted(PlaceBidResponse),
    /// With that gRPC code.
    Refused(u16),
}

/// The fate of a bid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    Accepted,
    /// By the rules.
    Refused,
    /// Because of a limit.
    TurnedAway,
}

/// One connection of one bidder.
#[derive(Clone)]
pub(crate) struct Client {
    send: SendRequest<Bytes>,
    uri: Uri,
    authorization: HeaderValue,
}

impl Client {
    #[expect(clippy::disallowed_methods, reason = "the connection ends with the client")]
    pub(crate) async fn connect(address: &str, token: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        // Many small answers may wait to be read at once.
        let (send, connection) =
            h2::client::Builder::new().data_frame_budget(DATA_FRAME_BUDGET).handshake(stream).await?;
        tokio::spawn(connection);
        let uri = format!("http://{address}/gavel.v1.BidService/PlaceBid").parse()?;
        Ok(Self { send, uri, authorization: format!("Bearer {token}").parse()? })
    }

    /// Places a bid; of the answer only what became of it.
    pub(crate) async fn bid(&self, item_id: &str, amount_minor: i64) -> anyhow::Result<Answer> {
        match self.place(item_id, amount_minor).await? {
            Reply::Accepted(_) => Ok(Answer::Accepted),
            Reply::Refused(9) => Ok(Answer::Refused),
            Reply::Refused(8) => Ok(Answer::TurnedAway),
            Reply::Refused(code) => bail!("the bid failed with gRPC code {code}"),
        }
    }

    /// Places a bid.
    pub(crate) async fn place(&self, item_id: &str, amount_minor: i64) -> anyhow::Result<Reply> {
        let bid = PlaceBidRequest {
            item_id: item_id.to_owned(),
            max_amount_minor: amount_minor,
            idempotency_key: ids::random().to_string(),
        };
        let body = framed(&bid.encode_to_vec())?;
        let request = Request::post(self.uri.clone())
            .header(CONTENT_TYPE, GRPC)
            .header(TE, TRAILERS)
            .header(AUTHORIZATION, self.authorization.clone())
            .body(())?;
        let mut send = self.send.clone().ready().await?;
        let (response, mut stream) = send.send_request(request, false)?;
        stream.send_data(body, true)?;
        let (head, mut body) = response.await?.into_parts();
        let mut reply = BytesMut::new();
        while let Some(chunk) = body.data().await {
            let chunk = chunk?;
            body.flow_control().release_capacity(chunk.len())?;
            reply.extend_from_slice(&chunk);
        }
        let trailers = body.trailers().await?;
        let code = status(&head.headers).or_else(|| trailers.as_ref().and_then(status)).context("no grpc-status")?;
        if code > 0 {
            return Ok(Reply::Refused(code));
        }
        Ok(Reply::Accepted(PlaceBidResponse::decode(reply.get(5..).context("no reply")?)?))
    }
}

/// A message as gRPC and Connect frame it.
pub(crate) fn framed(message: &[u8]) -> anyhow::Result<Bytes> {
    let mut framed = BytesMut::with_capacity(5 + message.len());
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len())?);
    framed.put_slice(message);
    Ok(framed.freeze())
}

fn status(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}
