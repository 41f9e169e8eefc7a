//! A gRPC client that costs as little as one can: the machine is shared with what is measured.
use anyhow::{Context, bail};
use bytes::{BufMut, Bytes, BytesMut};
use gavel_proto::v1::{PlaceBidRequest, PlaceBidResponse};
use gavel_runtime::ids;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Uri,
    client::conn::http2,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, TE},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::TcpStream;

const GRPC: HeaderValue = HeaderValue::from_static("application/grpc");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// What became of a bid.
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
    send: http2::SendRequest<Full<Bytes>>,
    uri: Uri,
    authorization: HeaderValue,
}

impl Client {
    #[expect(clippy::disallowed_methods, reason = "the connection ends with the client")]
    pub(crate) async fn connect(address: &str, token: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (send, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let uri = format!("http://{address}/gavel.v1.BidService/PlaceBid").parse()?;
        Ok(Self { send, uri, authorization: format!("Bearer {token}").parse()? })
    }

    /// Places a bid.
    pub(crate) async fn bid(&mut self, item_id: &str, amount_minor: i64) -> anyhow::Result<Answer> {
        let bid = PlaceBidRequest {
            item_id: item_id.to_owned(),
            max_amount_minor: amount_minor,
            idempotency_key: ids::random().to_string(),
        };
        let mut body = BytesMut::with_capacity(128);
        body.put_u8(0);
        body.put_u32(u32::try_from(bid.encoded_len())?);
        bid.encode(&mut body)?;
        let request = Request::post(self.uri.clone())
            .header(CONTENT_TYPE, GRPC)
            .header(TE, TRAILERS)
            .header(AUTHORIZATION, self.authorization.clone())
            .body(Full::new(body.freeze()))?;
        self.send.ready().await?;
        let response = self.send.send_request(request).await?;
        let early = status(response.headers());
        let body = response.into_body().collect().await?;
        let code = early.or_else(|| body.trailers().and_then(status)).context("no grpc-status")?;
        match code {
            0 => {
                let bytes = body.to_bytes();
                PlaceBidResponse::decode(bytes.get(5..).context("no reply")?)?;
                Ok(Answer::Accepted)
            }
            9 => Ok(Answer::Refused),
            8 => Ok(Answer::TurnedAway),
            code => bail!("the bid failed with gRPC code {code}"),
        }
    }
}

fn status(headers: &hyper::HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}
