//! The read model made anew from the items, while everybody works: for after Redis was lost, and after a bug. Readers do
//! the same for what they read; here it is done for all, and counted.
use super::sql;
use crate::{
    item::{self, agree, cache_key},
    schema::bid_ceiling_minor,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use gavel_runtime::{
    Io, Result,
    redis::{Found, Versioned},
};
use prost::Message;
use uuid::Uuid;

/// Items read at a time.
const PAGE: i64 = 500;
/// Items looked at at the same time.
const AT_ONCE: usize = 8;

/// What it found, and put right.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Items.
    pub items: u64,
    /// Of those, that the read model did not have.
    pub missing: u64,
    /// That it had in an earlier version: their events may have been on their way.
    pub earlier: u64,
    /// That were not what the items say.
    pub wrong: u64,
}

/// Goes through all items, newest first, and says after each page how far it is. Of those that are over, only what the
/// read model has is looked at: whoever asks for one fills it.
///
/// # Errors
/// When either server fails: what was put right until then stays.
pub async fn rebuild(io: &Io, mut so_far: impl FnMut(&Rebuilt)) -> Result<Rebuilt> {
    let (mut rebuilt, mut before) = (Rebuilt::default(), Uuid::max());
    loop {
        let page = sql::page(io.reads(), before, PAGE).await?;
        let Some(last) = page.last() else { return Ok(rebuilt) };
        before = last.item_id;
        let looked = stream::iter(page).map(|row| look(io, row.item_id, row.is_over)).buffer_unordered(AT_ONCE);
        for found in looked.try_collect::<Vec<_>>().await? {
            rebuilt.items += 1;
            match found {
                Some(Found::Same) | None => {}
                Some(Found::Nothing) => rebuilt.missing += 1,
                Some(Found::Earlier) => rebuilt.earlier += 1,
                Some(Found::Wrong) => rebuilt.wrong += 1,
            }
        }
        so_far(&rebuilt);
    }
}

async fn look(io: &Io, item_id: Uuid, is_over: bool) -> Result<Option<Found>> {
    let key = cache_key(&item_id.to_string());
    if is_over && io.cache().get(&key).await?.is_none() {
        return Ok(None);
    }
    let load = async {
        let row = item::read(io.reads(), item_id).await?;
        Ok(Versioned { version: row.version, value: row.state(bid_ceiling_minor(io))?.encode_to_vec() })
    };
    io.cache().put_truth(&key, load, agree).await.map(Some)
}
