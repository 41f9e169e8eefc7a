//! The gRPC services: each method leads to its handler, and nothing else happens here.
use crate::{
    create_item::CreateItem,
    get_item::GetItem,
    get_user_stats::GetUserStats,
    list_bids::ListBids,
    list_handlers::ListHandlers,
    list_items::ListItems,
    operate_dead_jobs::{DiscardDeadJobs, ListDeadJobs, RetryDeadJobs},
    operate_parked::{DiscardParkedMessages, GetParkedMessage, ListParkedMessages, RetryParkedMessages},
    operate_queues::{CancelJob, GetJob, ListJobs, ListQueues, PauseQueue, ResumeQueue},
    place_bid::PlaceBid,
    scale_workers::{GetMetricSpec, GetMetrics, IsActive, StreamIsActive},
};
use gavel_proto::{externalscaler as keda, v1};
use gavel_runtime::{
    Runtime,
    rpc::{Batched, serve_io, serve_stream, serve_tx},
};
use poem_grpc::{Request, Response, RouteGrpc, Status, Streaming};

/// Adds every service.
pub fn mount(runtime: &Runtime, route: RouteGrpc) -> RouteGrpc {
    route
        .add_service(v1::ItemServiceServer::new(Items(runtime.clone())))
        .add_service(v1::BidServiceServer::new(Bids { runtime: runtime.clone(), place_bid: Batched::new(runtime) }))
        .add_service(v1::UserServiceServer::new(Users(runtime.clone())))
        .add_service(v1::OpsServiceServer::new(Ops(runtime.clone())))
        .add_service(keda::ExternalScalerServer::new(Scaler(runtime.clone())))
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

struct Bids {
    runtime: Runtime,
    place_bid: Batched<PlaceBid>,
}

impl v1::BidService for Bids {
    async fn place_bid(&self, request: Request<v1::PlaceBidRequest>) -> Reply<v1::PlaceBidResponse> {
        self.place_bid.serve(request).await
    }

    async fn list_bids(&self, request: Request<v1::ListBidsRequest>) -> Reply<v1::ListBidsResponse> {
        serve_io::<ListBids>(&self.runtime, request).await
    }
}

struct Users(Runtime);

impl v1::UserService for Users {
    async fn get_user_stats(&self, request: Request<v1::GetUserStatsRequest>) -> Reply<v1::GetUserStatsResponse> {
        serve_io::<GetUserStats>(&self.0, request).await
    }
}

struct Ops(Runtime);

impl v1::OpsService for Ops {
    async fn list_handlers(&self, request: Request<v1::ListHandlersRequest>) -> Reply<v1::ListHandlersResponse> {
        serve_io::<ListHandlers>(&self.0, request).await
    }

    async fn list_queues(&self, request: Request<v1::ListQueuesRequest>) -> Reply<v1::ListQueuesResponse> {
        serve_io::<ListQueues>(&self.0, request).await
    }

    async fn pause_queue(&self, request: Request<v1::PauseQueueRequest>) -> Reply<v1::PauseQueueResponse> {
        serve_tx::<PauseQueue>(&self.0, request).await
    }

    async fn resume_queue(&self, request: Request<v1::ResumeQueueRequest>) -> Reply<v1::ResumeQueueResponse> {
        serve_tx::<ResumeQueue>(&self.0, request).await
    }

    async fn list_jobs(&self, request: Request<v1::ListJobsRequest>) -> Reply<v1::ListJobsResponse> {
        serve_io::<ListJobs>(&self.0, request).await
    }

    async fn get_job(&self, request: Request<v1::GetJobRequest>) -> Reply<v1::GetJobResponse> {
        serve_io::<GetJob>(&self.0, request).await
    }

    async fn cancel_job(&self, request: Request<v1::CancelJobRequest>) -> Reply<v1::CancelJobResponse> {
        serve_tx::<CancelJob>(&self.0, request).await
    }

    async fn list_dead_jobs(&self, request: Request<v1::ListDeadJobsRequest>) -> Reply<v1::ListDeadJobsResponse> {
        serve_io::<ListDeadJobs>(&self.0, request).await
    }

    async fn retry_dead_jobs(&self, request: Request<v1::RetryDeadJobsRequest>) -> Reply<v1::RetryDeadJobsResponse> {
        serve_tx::<RetryDeadJobs>(&self.0, request).await
    }

    async fn discard_dead_jobs(
        &self,
        request: Request<v1::DiscardDeadJobsRequest>,
    ) -> Reply<v1::DiscardDeadJobsResponse> {
        serve_tx::<DiscardDeadJobs>(&self.0, request).await
    }

    async fn list_parked_messages(
        &self,
        request: Request<v1::ListParkedMessagesRequest>,
    ) -> Reply<v1::ListParkedMessagesResponse> {
        serve_io::<ListParkedMessages>(&self.0, request).await
    }

    async fn get_parked_message(
        &self,
        request: Request<v1::GetParkedMessageRequest>,
    ) -> Reply<v1::GetParkedMessageResponse> {
        serve_io::<GetParkedMessage>(&self.0, request).await
    }

    async fn retry_parked_messages(
        &self,
        request: Request<v1::RetryParkedMessagesRequest>,
    ) -> Reply<v1::RetryParkedMessagesResponse> {
        serve_tx::<RetryParkedMessages>(&self.0, request).await
    }

    async fn discard_parked_messages(
        &self,
        request: Request<v1::DiscardParkedMessagesRequest>,
    ) -> Reply<v1::DiscardParkedMessagesResponse> {
        serve_tx::<DiscardParkedMessages>(&self.0, request).await
    }
}

struct Scaler(Runtime);

impl keda::ExternalScaler for Scaler {
    async fn is_active(&self, request: Request<keda::ScaledObjectRef>) -> Reply<keda::IsActiveResponse> {
        serve_io::<IsActive>(&self.0, request).await
    }

    async fn stream_is_active(
        &self,
        request: Request<keda::ScaledObjectRef>,
    ) -> Reply<Streaming<keda::IsActiveResponse>> {
        serve_stream::<StreamIsActive>(&self.0, request).await
    }

    async fn get_metric_spec(&self, request: Request<keda::ScaledObjectRef>) -> Reply<keda::GetMetricSpecResponse> {
        serve_io::<GetMetricSpec>(&self.0, request).await
    }

    async fn get_metrics(&self, request: Request<keda::GetMetricsRequest>) -> Reply<keda::GetMetricsResponse> {
        serve_io::<GetMetrics>(&self.0, request).await
    }
}
