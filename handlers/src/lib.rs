//! Gavel's auction: one folder per use case, each a handler that the runtime calls.
//!
//! [`app`] is the whole list. The rooms beside the use cases hold what several need: [`item`] the row and its public
//! state, [`jobs`] the kinds of jobs they hand each other.

pub mod item;
pub mod jobs;

pub mod apply_user_stats;
pub mod close_item;
pub mod close_overdue_items;
pub mod create_item;
pub mod get_item;
pub mod get_user_stats;
pub mod list_bids;
pub mod list_handlers;
pub mod list_items;
pub mod operate_dead_jobs;
pub mod operate_parked;
pub mod operate_queues;
pub mod place_bid;
pub mod project_item;
pub mod redeliver_message;
pub mod relay_outbox;
pub mod scale_workers;
pub mod show_item;
pub mod start_item;
pub mod sweep_receipts;
pub mod watch_item;
pub mod watch_user;

mod convert;
mod live;

use gavel_runtime::App;
use sqlx::migrate::Migrator;

/// What a running version needs of the schema.
pub static EXPAND: Migrator = sqlx::migrate!("../migrations/expand");

/// Everything Gavel does: one line per use case.
pub fn app() -> App {
    App::new("gavel", &EXPAND)
        .contracts(gavel_proto::DESCRIPTORS)
        .rpc_tx::<create_item::CreateItem>()
        .rpc_io::<get_item::GetItem>()
        .rpc_io::<list_items::ListItems>()
        .rpc_batch::<place_bid::PlaceBid>()
        .rpc_io::<list_bids::ListBids>()
        .rpc_io::<get_user_stats::GetUserStats>()
        .feed::<watch_item::ItemFeed>()
        .rpc_stream::<watch_item::WatchItem>()
        .feed::<watch_user::UserFeed>()
        .rpc_stream::<watch_user::WatchUser>()
        .rpc_io::<list_handlers::ListHandlers>()
        .rpc_io::<operate_queues::ListQueues>()
        .rpc_tx::<operate_queues::PauseQueue>()
        .rpc_tx::<operate_queues::ResumeQueue>()
        .rpc_io::<operate_queues::ListJobs>()
        .rpc_io::<operate_queues::GetJob>()
        .rpc_tx::<operate_queues::CancelJob>()
        .rpc_io::<operate_dead_jobs::ListDeadJobs>()
        .rpc_tx::<operate_dead_jobs::RetryDeadJobs>()
        .rpc_tx::<operate_dead_jobs::DiscardDeadJobs>()
        .rpc_io::<operate_parked::ListParkedMessages>()
        .rpc_io::<operate_parked::GetParkedMessage>()
        .rpc_tx::<operate_parked::RetryParkedMessages>()
        .rpc_tx::<operate_parked::DiscardParkedMessages>()
        .rpc_io::<scale_workers::IsActive>()
        .rpc_stream::<scale_workers::StreamIsActive>()
        .rpc_io::<scale_workers::GetMetricSpec>()
        .rpc_stream::<scale_workers::StreamMetricSpec>()
        .rpc_io::<scale_workers::GetMetrics>()
        .http_io::<show_item::ShowItem>()
        .poll_io::<relay_outbox::RelayOutbox>()
        .message_tx_batch::<apply_user_stats::ApplyUserStats>()
        .message_io_batch::<project_item::ProjectItem>()
        .job_tx::<start_item::StartItem>()
        .job_tx::<close_item::CloseItem>()
        .reconciler::<close_overdue_items::CloseOverdueItems>()
        .job_io::<redeliver_message::Redeliver>()
        .schedule_tx::<sweep_receipts::SweepReceipts>()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_registration_is_valid_and_every_method_has_a_handler() {
        if let Err(errors) = super::app().checked() {
            panic!("{errors}");
        }
    }
}
