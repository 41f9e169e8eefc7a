//! The gRPC services: each method leads to its handler, and nothing else happens here.
use crate::{
    create_item::CreateItem, get_item::GetItem, get_user_stats::GetUserStats, list_bids::ListBids,
    list_items::ListItems, place_bid::PlaceBid,
};
use gavel_proto::v1;
use gavel_runtime::{
    Runtime,
    rpc::{serve_io, serve_tx},
};
use poem_grpc::{Request, Response, RouteGrpc, Status};

/// Adds every service.
pub fn mount(runtime: &Runtime, route: RouteGrpc) -> RouteGrpc {
    route
        .add_service(v1::ItemServiceServer::new(Items(runtime.clone())))
        .add_service(v1::BidServiceServer::new(Bids(runtime.clone())))
        .add_service(v1::UserServiceServer::new(Users(runtime.clone())))
}

type Reply<T> = Result<Response<T>, Status>;

struct Items(Runtime);

impl v1::ItemService for Items {
    async fn create_item(&self, request: Request<v1::CreateItemRequest>) -> Reply<v1::CreateItemResponse> {
        serve_tx::<CreateItem>(&self.0, request).await
    }

    async fn get_item(&self, request: Request<v1::GetItemRequest>) -> Reply<v1::GetItemResponse> {
        serve_io::<GetItem>(&self.0, request).await
    }

    async fn list_items(&self, request: Request<v1::ListItemsRequest>) -> Reply<v1::ListItemsResponse> {
        serve_io::<ListItems>(&self.0, request).await
    }
}

struct Bids(Runtime);

impl v1::BidService for Bids {
    async fn place_bid(&self, request: Request<v1::PlaceBidRequest>) -> Reply<v1::PlaceBidResponse> {
        serve_tx::<PlaceBid>(&self.0, request).await
    }

    async fn list_bids(&self, request: Request<v1::ListBidsRequest>) -> Reply<v1::ListBidsResponse> {
        serve_io::<ListBids>(&self.0, request).await
    }
}

struct Users(Runtime);

impl v1::UserService for Users {
    async fn get_user_stats(&self, request: Request<v1::GetUserStatsRequest>) -> Reply<v1::GetUserStatsResponse> {
        serve_io::<GetUserStats>(&self.0, request).await
    }
}
