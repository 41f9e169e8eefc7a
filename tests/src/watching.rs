//! Somebody who watches an item, and what must hold of what they see.
use crate::Api;
use futures_util::TryStreamExt;
use gavel_proto::v1::watch_item_response::Frame;

/// Watches until the stream ends, from what is known on, and notes the version of each frame.
///
/// # Errors
/// What was seen that must not be: versions only rise, and a heartbeat tells of the one that is known.
pub async fn follow(api: &Api, item_id: &str, known: i64, mut note: impl FnMut(i64)) -> Result<(), String> {
    let Ok(mut stream) = api.watch_item(item_id, known).await else { return Ok(()) };
    let mut version = known;
    while let Ok(Some(response)) = stream.try_next().await {
        version = match response.frame {
            Some(Frame::Snapshot(item)) if item.version >= version => item.version,
            Some(Frame::Update(update)) if update.version > version => update.version,
            Some(Frame::Heartbeat(heartbeat)) if heartbeat.version == version => version,
            other => return Err(format!("a watcher of {item_id} at version {version} saw {other:?}")),
        };
        note(version);
    }
    Ok(())
}
