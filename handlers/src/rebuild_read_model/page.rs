//! A page of items, looked at and put right.
use super::sql::{self, Counted};
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
const AT_ONCE: usize = 4;

/// Goes through the items before that one, newest first; gives the last of them, none where there are no more. Of those
/// that are over, only what the read model has is looked at: whoever asks for one fills it.
///
/// # Errors
/// When either server fails: what was put right until then stays.
pub(super) async fn put_right(io: &Io, before: Uuid) -> Result<(Counted, Option<Uuid>)> {
    let (mut counted, page) = (Counted::default(), sql::page(io.reads(), before, PAGE).await?);
    let last = page.last().map(|row| row.item_id);
    let looked = stream::iter(page).map(|row| look(io, row.item_id, row.is_over)).buffer_unordered(AT_ONCE);
    for found in looked.try_collect::<Vec<_>>().await? {
        counted.items += 1;
        match found {
            Some(Found::Same) | None => {}
            Some(Found::Nothing) => counted.missing += 1,
            Some(Found::Earlier) => counted.earlier += 1,
            Some(Found::Wrong) => counted.wrong += 1,
        }
    }
    Ok((counted, last))
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
