//! Applying messages: effects and receipts in one transaction, or effects alone where they are idempotent by
//! themselves.
use super::{
    delivery::Received,
    handler::{Consumer, ErasedConsumer, HandleTx},
};
use crate::{
    Error, Invocation, Io, Member, Result, Runtime, Tx,
    base::{batch::Verdicts, failpoint, spec::PoolKind},
    postgres::{receipt, tx::bounded},
};

/// Applies a batch, with its receipts where it has any. One verdict each.
pub(super) async fn apply(runtime: &Runtime, consumer: Consumer, members: &[Member<Received>]) -> Result<Verdicts<()>> {
    let latest = members.iter().map(|member| member.invocation.deadline).max();
    let mut run = members
        .first()
        .map_or_else(|| Invocation::start(consumer.spec.name, consumer.spec.limits.timeout), |m| m.invocation.clone());
    run.deadline = latest.unwrap_or(run.deadline);
    match consumer.handler {
        ErasedConsumer::Tx(handle) => {
            let mut tx = Tx::begin(runtime.pools(), PoolKind::Jobs, run).await?;
            match first_time(consumer.spec.name, &mut tx, handle, members).await {
                Ok(Some(verdicts)) => {
                    failpoint::hit(consumer.spec.name, "before_commit");
                    tx.commit().await?;
                    Ok(verdicts)
                }
                Ok(None) => {
                    tx.rollback().await;
                    Err(Error::new(crate::Class::Unavailable, "another consumer had one of these messages as well"))
                }
                Err(error) => Err(tx.fail(error).await),
            }
        }
        ErasedConsumer::Io(handle) => {
            let io = Io::new(runtime, PoolKind::Jobs, run);
            bounded(io.invocation().remaining(), handle(&io, members)).await
        }
    }
}

/// Handles those that were not handled before, with their receipts as the last statement. None when one was handled
/// elsewhere meanwhile.
async fn first_time(
    consumer: &str,
    tx: &mut Tx,
    handle: HandleTx,
    members: &[Member<Received>],
) -> Result<Option<Verdicts<()>>> {
    let ids: Vec<_> = members.iter().filter_map(|member| member.input.message_id).collect();
    let known = receipt::in_inbox(tx, consumer, &ids).await?;
    let is_new = |member: &&Member<Received>| member.input.message_id.is_some_and(|id| !known.contains(&id));
    let new: Vec<_> = members.iter().filter(is_new).cloned().collect();
    let left = tx.invocation().remaining();
    let mut verdicts = if new.is_empty() { Vec::new() } else { bounded(left, handle(tx, &new)).await? }.into_iter();
    let (mut all, mut applied) = (Vec::with_capacity(members.len()), Vec::new());
    for member in members {
        let verdict = match member.input.id() {
            Err(error) => Err(error),
            Ok(id) if known.contains(&id) => Ok(()),
            Ok(id) => {
                let verdict = verdicts.next().unwrap_or_else(|| Err(Error::internal(anyhow::anyhow!("no verdict"))));
                if verdict.is_ok() {
                    applied.push(id);
                }
                verdict
            }
        };
        all.push(verdict);
    }
    if applied.is_empty() || receipt::put_in_inbox(tx, consumer, &applied).await? { Ok(Some(all)) } else { Ok(None) }
}
