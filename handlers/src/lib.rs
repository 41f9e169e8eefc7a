//! Gavel's auction: one folder per use case, each a handler that the runtime calls.
//!
//! [`app`] is the whole list. The rooms beside the use cases hold what several need: [`item`] the row and its public
//! state, [`jobs`] the kinds of jobs they hand each other, [`wire`] the gRPC services that lead to them.

pub mod item;
pub mod jobs;
pub mod wire;

pub mod apply_user_stats;
pub mod close_item;
pub mod create_item;
pub mod get_item;
pub mod get_user_stats;
pub mod list_bids;
pub mod list_items;
pub mod place_bid;
pub mod project_item;
pub mod relay_outbox;
pub mod show_item;
pub mod sweep_receipts;

mod convert;

use gavel_runtime::App;
use sqlx::migrate::Migrator;

/// What a running version needs of the schema.
pub static EXPAND: Migrator = sqlx::migrate!("../migrations/expand");

/// Everything Gavel does: one line per use case.
pub fn app() -> App {
    App::new("gavel", &EXPAND)
        .grpc(gavel_proto::DESCRIPTORS, wire::mount)
        .rpc_tx::<create_item::CreateItem>()
        .rpc_io::<get_item::GetItem>()
        .rpc_io::<list_items::ListItems>()
        .rpc_tx::<place_bid::PlaceBid>()
        .rpc_io::<list_bids::ListBids>()
        .rpc_io::<get_user_stats::GetUserStats>()
        .http_io::<show_item::ShowItem>()
        .poll_io::<relay_outbox::RelayOutbox>()
        .message_tx::<apply_user_stats::ApplyUserStats>()
        .message_io::<project_item::ProjectItem>()
        .job_tx::<close_item::CloseItem>()
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
