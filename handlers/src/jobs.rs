//! The kinds of jobs: what one use case asks another to do later. Kinds are never renamed, fields only added.
use gavel_runtime::job::Job;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Record the end of an auction, due when it ends.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CloseItem {
    /// Which.
    pub item_id: Uuid,
}

impl Job for CloseItem {
    const KIND: &'static str = "close_item";
    const RETRIES: u32 = 20;
}

/// Announce that bidding has begun, due when it does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StartItem {
    /// Which.
    pub item_id: Uuid,
}

impl Job for StartItem {
    const KIND: &'static str = "start_item";
    const RETRIES: u32 = 10;
}

/// Make the read model anew.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RebuildReadModel {
    /// Which time it is, as its row is named.
    pub rebuild_id: Uuid,
}

impl Job for RebuildReadModel {
    const KIND: &'static str = "rebuild_read_model";
    const RETRIES: u32 = 20;
}
