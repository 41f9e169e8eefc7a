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
pub mod list_items;
pub mod place_bid;
pub mod project_item;
pub mod show_item;
pub mod start_item;
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
        .http_io::<show_item::ShowItem>()
        .message_tx_batch::<apply_user_stats::ApplyUserStats>()
        .message_io_batch::<project_item::ProjectItem>()
        .job_tx::<start_item::StartItem>()
        .job_tx::<close_item::CloseItem>()
        .reconciler::<close_overdue_items::CloseOverdueItems>()
        .with(gavel_operators::calls)
        .with(gavel_operators::housekeeping)
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
