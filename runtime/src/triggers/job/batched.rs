//! Running all jobs of a claim by one call of their handler.
use super::{BatchHandler, Verdict};
use crate::queue::{Headers, claim::Claimed, payload::read, stop::Stop};
use crate::{
    Error, Invocation, Member, Result, Tx,
    base::{
        batch::{self, Verdicts},
        spec::Spec,
    },
};
use futures_util::future::BoxFuture;

/// A batched handler with its types forgotten: arguments as JSON, where there are any.
pub(crate) type HandleAll = for<'a> fn(&'a mut Tx, Vec<Member<String>>) -> BoxFuture<'a, Result<Verdicts<Verdict>>>;

/// Reads each job's arguments; those that can't be read get their verdict here.
pub(super) fn call<H: BatchHandler>(
    tx: &mut Tx,
    jobs: Vec<Member<String>>,
) -> BoxFuture<'_, Result<Verdicts<Verdict>>> {
    Box::pin(async move {
        let (mut members, mut unreadable) = (Vec::new(), Vec::new());
        for Member { input, invocation } in jobs {
            unreadable.push(match read::<H::Job>(&input) {
                Ok(input) => {
                    members.push(Member { input, invocation });
                    None
                }
                Err(error) => Some(error),
            });
        }
        let verdicts = if members.is_empty() { Vec::new() } else { H::handle(tx, &members).await? };
        let mut verdicts = batch::counted(verdicts, members.len())?.into_iter();
        let lost = || Err(Error::internal(anyhow::anyhow!("no verdict was given")));
        Ok(unreadable
            .into_iter()
            .map(|error| error.map_or_else(|| verdicts.next().unwrap_or_else(lost), Err))
            .collect())
    })
}

/// Claimed jobs as a handler gets them.
pub(super) fn members(spec: &Spec, jobs: &[Claimed], stops: &[Stop]) -> Vec<Member<String>> {
    let member = |(job, stop): (&Claimed, &Stop)| {
        let headers = Headers::read(job.headers.as_deref());
        let (correlation_id, traceparent) = (headers.correlation_id.as_deref(), headers.traceparent.as_deref());
        let invocation = Invocation::continuing(spec.name, correlation_id, traceparent, spec.limits.timeout);
        Member {
            input: job.args.clone().unwrap_or_else(|| "null".to_owned()),
            invocation: invocation.cancelled_by(stop.asked().clone()),
        }
    };
    jobs.iter().zip(stops).map(member).collect()
}
