//! How many watch each topic: every process says once a second how many it has, and hears the sum of all.
use crate::context::Live;
use crate::{Runtime, base::ids, redis::Presence};
use std::{collections::HashSet, time::Duration};

/// How often.
const EVERY: Duration = Duration::from_secs(1);
/// What a process has said counts no longer than this.
const COUNTS_FOR: Duration = Duration::from_secs(4);

/// Counts until the drain.
pub(super) async fn run(runtime: Runtime) {
    let member = ids::random().to_string();
    let mut told = Vec::new();
    while runtime.tasks().pause(EVERY).await {
        told = count(&runtime, &member, &told).await;
    }
}

/// Says how many watch each topic here, also of those that nobody watches any more; gives those that somebody does.
async fn count(runtime: &Runtime, member: &str, before: &[(usize, String)]) -> Vec<(usize, String)> {
    let live: &Live = runtime.live();
    let mut here = Vec::new();
    let mut counts = Vec::new();
    for (number, hub) in live.hubs.iter().enumerate() {
        for (topic, count) in hub.audience() {
            counts.push(count);
            here.push((number, topic));
        }
    }
    let still: HashSet<_> = here.iter().collect();
    let gone: Vec<_> = before.iter().filter(|topic| !still.contains(topic)).cloned().collect();
    let all: Vec<_> = here.iter().chain(&gone).collect();
    counts.resize(all.len(), 0);
    let presences = all
        .iter()
        .zip(counts)
        .map(|((number, topic), count)| Presence { key: format!("watchers:{number}:{topic}"), count });
    let sums = runtime.cache().present(member, &presences.collect::<Vec<_>>(), COUNTS_FOR).await;
    if let Err(error) = &sums {
        tracing::debug!(%error, "watchers can't be counted");
    }
    for (at, (number, topic)) in here.iter().enumerate() {
        let sum = sums.as_ref().ok().and_then(|sums| sums.get(at).copied());
        live.hubs[*number].tell(topic, sum, runtime.tasks());
    }
    here
}
