//! Gavel's auction: one folder per use case, each a handler that the runtime calls.
//!
//! [`app`] is the whole list. The rooms beside the use cases hold what several need: [`item`] the row and its public
//! state, [`jobs`] the kinds of jobs they hand each other.

pub mod item;
pub mod jobs;
pub mod rights;
pub mod schema;

pub mod apply_user_stats;
pub mod cancel_item;
pub mod close_item;
pub mod close_overdue_items;
pub mod create_item;
pub mod get_item;
pub mod get_user_stats;
pub mod list_bids;
pub mod list_items;
pub mod place_bid;
pub mod project_item;
pub mod rebuild_read_model;
pub mod show_item;
pub mod start_item;
pub mod watch_item;
pub mod watch_user;

mod convert;
mod live;

pub use schema::EXPAND;

use gavel_runtime::App;

/// Everything Gavel does: one line per use case.
pub fn app() -> App {
    App::new("gavel", &EXPAND)
        .changes(schema::SOURCES, schema::PROGRAMS)
        .contracts(gavel_proto::DESCRIPTORS)
        .rpc_tx::<create_item::CreateItem>()
        .rpc_tx::<cancel_item::CancelItem>()
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
        .job_io::<rebuild_read_model::RebuildReadModel>()
        .rpc_tx::<rebuild_read_model::StartRebuild>()
        .rpc_io::<rebuild_read_model::GetRebuild>()
        .with(gavel_operators::calls)
        .with(gavel_operators::housekeeping)
        .with(gavel_operators::schema_changes)
}

#[cfg(test)]
mod tests {
    use crate::item::routing_key;
    use gavel_proto::events_v1::ItemEvent;
    use gavel_runtime::spec::Trigger;
    use prost::{Message, Name};
    use prost_types::FileDescriptorSet;

    /// What consumers and feeds don't hear, on purpose: all else each of them must, or a test names it.
    const UNHEARD: [(&str, &str); 6] = [
        // They count bids and sales.
        ("apply_user_stats", routing_key::CREATED),
        ("apply_user_stats", routing_key::STARTED),
        ("apply_user_stats", routing_key::CANCELLED),
        // Nobody watches what is not there yet.
        ("item_feed", routing_key::CREATED),
        // Who has not bid has no standing.
        ("user_feed", routing_key::CREATED),
        ("user_feed", routing_key::STARTED),
    ];

    /// Returns how many facts the contract of an item's event has.
    fn facts() -> usize {
        let all = FileDescriptorSet::decode(gavel_proto::DESCRIPTORS).expect("descriptors");
        let mut messages =
            all.file.iter().filter(|file| file.package() == ItemEvent::PACKAGE).flat_map(|file| &file.message_type);
        let event = messages.find(|message| message.name() == ItemEvent::NAME).expect("the event");
        event.field.iter().filter(|field| field.oneof_index.is_some()).count()
    }

    #[test]
    fn every_consumer_and_every_feed_hears_of_every_fact_or_says_that_it_does_not() {
        assert_eq!(routing_key::ALL.len(), facts(), "each fact of the contract has a routing key in ALL");
        let app = super::app();
        for spec in app.registrations().iter().map(|registration| registration.spec) {
            let (Trigger::Message(heard) | Trigger::Broadcast(heard)) = spec.trigger else { continue };
            for key in routing_key::ALL {
                let is_said = UNHEARD.contains(&(spec.name, key));
                assert!(heard.contains(&key) != is_said, "{} and {key}: heard, or in UNHEARD", spec.name);
            }
        }
    }

    #[test]
    fn every_registration_is_valid_and_every_method_has_a_handler() {
        if let Err(errors) = super::app().checked() {
            panic!("{errors}");
        }
    }
}
