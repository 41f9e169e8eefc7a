//! A client of the API, as a frontend would be one.
use crate::{Process, eventually::PATIENCE};
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use gavel_proto::{
    externalscaler::ExternalScalerClient,
    health_v1::HealthClient,
    v1::{self, BidRefused, watch_item_response::Frame},
};
use http_body_util::{BodyExt, combinators::BoxBody};
use poem::{Endpoint, Middleware, Request as HttpRequest, Response as HttpResponse, http::HeaderMap};
use poem_grpc::{ClientConfig, Code, Request, Response, Status, Streaming};
use prost::Message;
use prost_types::Timestamp;
use std::{
    io,
    sync::{Arc, Mutex},
};
use uuid::Uuid;

/// A failed call, with its typed detail.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// The gRPC code.
    pub code: Code,
    /// The text.
    pub message: String,
    /// Why a bid was refused.
    pub refused: Option<BidRefused>,
    /// What the reply says it can be found by.
    pub correlation_id: Option<String>,
    /// All typed details.
    pub details: Vec<prost_types::Any>,
}

/// A connection, and the token it calls with.
#[derive(Clone)]
pub struct Api {
    /// The generated client.
    pub items: v1::ItemServiceClient,
    bids: v1::BidServiceClient,
    users: v1::UserServiceClient,
    /// Operators' calls.
    pub ops: v1::OpsServiceClient,
    /// KEDA's calls.
    pub scaler: ExternalScalerClient,
    /// A load balancer's calls.
    pub health: HealthClient,
    token: Option<String>,
    headers: Vec<(String, String)>,
}

impl Api {
    /// Calls a service of a test, each call at the address that serves it.
    pub async fn of(process: &Process) -> Self {
        Self::at(&process.address().await, &process.ops_address().await)
    }

    /// Calls the service at these addresses: the public's and operators'.
    pub fn at(address: &str, ops_address: &str) -> Self {
        let of = |address: &str| ClientConfig::builder().uri(format!("http://{address}")).build();
        let (config, ops) = (|| of(address).expect("a valid address"), || of(ops_address).expect("a valid address"));
        Self {
            items: v1::ItemServiceClient::new(config()).with(Capture),
            bids: v1::BidServiceClient::new(config()).with(Capture),
            users: v1::UserServiceClient::new(config()).with(Capture),
            ops: v1::OpsServiceClient::new(ops()).with(Capture),
            scaler: ExternalScalerClient::new(ops()).with(Capture),
            health: HealthClient::new(config()).with(Capture),
            token: None,
            headers: Vec::new(),
        }
    }

    /// The same connection with another token.
    #[must_use]
    pub fn with_token(&self, token: String) -> Self {
        Self { token: Some(token), ..self.clone() }
    }

    /// The same connection with one more header.
    #[must_use]
    pub fn with_header(&self, name: &str, value: &str) -> Self {
        let mut headers = self.headers.clone();
        headers.push((name.to_owned(), value.to_owned()));
        Self { headers, ..self.clone() }
    }

    /// Publishes an item.
    pub async fn create_item(&self, request: v1::CreateItemRequest) -> Result<v1::Item, Failure> {
        let (request, seen) = self.request(request);
        let reply = settle(self.items.create_item(request).await, &seen)?;
        Ok(reply.item.expect("the reply has an item"))
    }

    /// Publishes an item in euros at 10.00 that ends then.
    pub async fn create(&self, title: &str, ends_at: DateTime<Utc>) -> v1::Item {
        self.try_create(title, ends_at).await.expect("the item is published")
    }

    /// As [`Api::create`], where that may be refused.
    pub async fn try_create(&self, title: &str, ends_at: DateTime<Utc>) -> Result<v1::Item, Failure> {
        let request = v1::CreateItemRequest {
            idempotency_key: Uuid::new_v4().to_string(),
            title: title.to_owned(),
            currency: "EUR".to_owned(),
            start_price_minor: 1_000,
            starts_at: None,
            ends_at: Some(Timestamp { seconds: ends_at.timestamp(), nanos: ends_at.timestamp_subsec_nanos() as i32 }),
            ..v1::CreateItemRequest::default()
        };
        self.create_item(request).await
    }

    /// Reads an item.
    pub async fn item(&self, item_id: &str) -> Result<v1::GetItemResponse, Failure> {
        let (request, seen) = self.request(v1::GetItemRequest { item_id: item_id.to_owned(), at_least_version: 0 });
        settle(self.items.get_item(request).await, &seen)
    }

    /// Lists items.
    pub async fn items(&self, request: v1::ListItemsRequest) -> Result<v1::ListItemsResponse, Failure> {
        let (request, seen) = self.request(request);
        settle(self.items.list_items(request).await, &seen)
    }

    /// Bids with that key.
    pub async fn bid_with_key(&self, item: &str, amount: i64, key: &str) -> Result<v1::PlaceBidResponse, Failure> {
        let (request, seen) = self.request(v1::PlaceBidRequest {
            item_id: item.to_owned(),
            max_amount_minor: amount,
            idempotency_key: key.to_owned(),
        });
        settle(self.bids.place_bid(request).await, &seen)
    }

    /// Bids.
    pub async fn bid(&self, item: &str, amount: i64) -> Result<v1::PlaceBidResponse, Failure> {
        self.bid_with_key(item, amount, &Uuid::new_v4().to_string()).await
    }

    /// Lists bids.
    pub async fn bids(&self, request: v1::ListBidsRequest) -> Result<v1::ListBidsResponse, Failure> {
        let (request, seen) = self.request(request);
        settle(self.bids.list_bids(request).await, &seen)
    }

    /// A user's figures; the caller's where empty.
    pub async fn stats(&self, user: &str) -> Result<v1::GetUserStatsResponse, Failure> {
        let (request, seen) = self.request(v1::GetUserStatsRequest { user_id: user.to_owned() });
        settle(self.users.get_user_stats(request).await, &seen)
    }

    /// Cancels an item, with a new key.
    pub async fn cancel(&self, item: &str, reason: &str) -> Result<v1::Item, Failure> {
        let (request, seen) = self.request(v1::CancelItemRequest {
            idempotency_key: Uuid::new_v4().to_string(),
            item_id: item.to_owned(),
            reason: reason.to_owned(),
        });
        let reply = settle(self.items.cancel_item(request).await, &seen)?;
        Ok(reply.item.unwrap_or_default())
    }

    /// Watches an item of which that version is known.
    pub async fn watch_item(&self, item: &str, known: i64) -> Result<Streaming<v1::WatchItemResponse>, Failure> {
        let (request, seen) = self.request(v1::WatchItemRequest { item_id: item.to_owned(), known_version: known });
        settle(self.items.watch_item(request).await, &seen)
    }

    /// Waits until what is committed is told to watchers as it happens: before, a later snapshot may tell of it.
    ///
    /// # Panics
    /// When that takes too long.
    pub async fn hears_events(&self, item: &str) {
        let mut stream = self.watch_item(item, 0).await.expect("watching");
        let is_fresh = async {
            loop {
                let frame = stream.next().await.expect("the stream goes on").expect("no error").frame;
                if matches!(frame, Some(Frame::Heartbeat(heartbeat)) if !heartbeat.stale) {
                    return;
                }
            }
        };
        tokio::time::timeout(PATIENCE, is_fresh).await.expect("events come");
    }

    /// Watches a user; the caller where empty.
    pub async fn watch_user(&self, user: &str) -> Result<Streaming<v1::WatchUserResponse>, Failure> {
        let (request, seen) = self.request(v1::WatchUserRequest { user_id: user.to_owned() });
        settle(self.users.watch_user(request).await, &seen)
    }

    /// A request with the token and the headers, and where the reply's headers will be seen.
    pub fn request<T>(&self, message: T) -> (Request<T>, Seen) {
        let mut request = Request::new(message);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", format!("Bearer {token}"));
        }
        for (name, value) in &self.headers {
            request.metadata_mut().insert(name, value.clone());
        }
        let seen = Seen::default();
        request.set_data(seen.clone());
        (request, seen)
    }
}

/// The reply's headers and trailers, which the client library drops when a call fails.
#[derive(Clone, Default)]
pub struct Seen(Arc<Mutex<HeaderMap>>);

impl Seen {
    fn add(&self, headers: &HeaderMap) {
        self.0.lock().expect("nobody panics here").extend(headers.clone());
    }
}

struct Capture;

impl<E: Endpoint<Output = HttpResponse>> Middleware<E> for Capture {
    type Output = CaptureEndpoint<E>;

    fn transform(&self, inner: E) -> Self::Output {
        CaptureEndpoint(inner)
    }
}

struct CaptureEndpoint<E>(E);

impl<E: Endpoint<Output = HttpResponse>> Endpoint for CaptureEndpoint<E> {
    type Output = HttpResponse;

    async fn call(&self, request: HttpRequest) -> poem::Result<HttpResponse> {
        let seen = request.data::<Seen>().cloned();
        let mut response = self.0.call(request).await?;
        if let Some(seen) = seen {
            seen.add(response.headers());
            // Of a call that failed the client library reads the headers alone.
            if response.headers().contains_key("grpc-status") {
                let body: BoxBody<Bytes, io::Error> = response.take_body().into();
                if let Some(trailers) = body.collect().await.map_err(poem::error::InternalServerError)?.trailers() {
                    seen.add(trailers);
                }
            }
        }
        Ok(response)
    }
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<prost_types::Any>,
}

/// Returns what a call came to, with the typed detail of its failure.
pub fn settle<T>(result: Result<Response<T>, Status>, Seen(slot): &Seen) -> Result<T, Failure> {
    let status = match result {
        Ok(response) => return Ok(response.into_inner()),
        Err(status) => status,
    };
    let headers = slot.lock().expect("nobody panics here").clone();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let details = header("grpc-status-details-bin").and_then(|text| STANDARD_NO_PAD.decode(text).ok());
    let rpc_status = details.map(|bytes| RpcStatus::decode(&bytes[..]).expect("details are a google.rpc.Status"));
    let details = rpc_status.map(|status| status.details).unwrap_or_default();
    let refused = details.iter().find(|any| any.type_url == "type.googleapis.com/gavel.v1.BidRefused");
    let refused = refused.map(|any| BidRefused::decode(&any.value[..]).expect("the detail is a BidRefused"));
    Err(Failure {
        code: status.code(),
        message: status.message().unwrap_or_default().to_owned(),
        refused,
        correlation_id: header("x-correlation-id").map(ToOwned::to_owned),
        details,
    })
}
