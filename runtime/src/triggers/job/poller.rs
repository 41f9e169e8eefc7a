//! Looks out for due jobs of all kinds this process runs, with one statement, and wakes their loops.
//!
//! It polls, and between polls it sleeps until the next job is due, so that a deadline is met to the millisecond. Loops
//! that find nothing ask it to look for what is due next; notifications wake them directly.
use super::turn::BROKEN;
use crate::queue::{Kind, claim::From, wake};
use crate::{
    Result, Runtime,
    base::backoff,
    postgres::{Listener, Pool},
};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// The longest time between two polls; jitter takes up to half of it off.
const POLL: Duration = Duration::from_millis(500);
/// Requests to look again are gathered for this long.
const GATHER: Duration = Duration::from_millis(1);

/// Starts looking and listening, until the drain.
pub(super) fn run(runtime: &Runtime) {
    let (looking, listening) = (runtime.clone(), runtime.clone());
    runtime.tasks().spawn(async move { look_out(&looking).await });
    runtime.tasks().spawn(async move { listen(&listening).await });
}

/// What a look at one kind found.
#[derive(Debug, Default, Clone, Copy)]
struct Sight {
    due: bool,
    next: Option<Duration>,
    poison: bool,
}

async fn look_out(runtime: &Runtime) {
    let (tasks, engine) = (runtime.tasks().clone(), runtime.jobs());
    let mut next: HashMap<&'static str, Instant> = HashMap::new();
    let mut poll_at = Instant::now();
    loop {
        let now = Instant::now();
        let wake_at = next.values().min().copied().unwrap_or(poll_at).min(poll_at);
        let mut polls = wake_at == poll_at;
        tokio::select! {
            () = tasks.draining().cancelled() => return,
            () = tokio::time::sleep(wake_at.saturating_duration_since(now)) => {}
            () = engine.rescan().notified() => {
                tokio::time::sleep(GATHER).await;
                polls = false;
            }
        }
        let kinds = engine.running_kinds();
        let arrived = Instant::now();
        for kind in kinds.iter().filter(|kind| next.get(kind.spec.name).is_some_and(|at| *at <= arrived)) {
            kind.wake();
        }
        if polls {
            poll_at = Instant::now() + backoff::jitter(POLL);
        }
        match look(&runtime.pools().reads, &kinds).await {
            Ok(sights) => next = act(&kinds, &sights, polls),
            Err(error) => {
                tracing::warn!(%error, "can't look for due jobs");
                for kind in &kinds {
                    kind.with_cursor(|cursor| cursor.failed(&error));
                }
                next.clear();
            }
        }
    }
}

/// Wakes who has something to do; gives when each kind's next job is due. Only a poll wakes for what is due already: a
/// job that another worker is running is due as well, and a loop that found nothing would be woken for it without end.
fn act(kinds: &[Arc<Kind>], sights: &HashMap<String, Sight>, polls: bool) -> HashMap<&'static str, Instant> {
    let now = Instant::now();
    let mut next = HashMap::new();
    for kind in kinds {
        let sight = sights.get(kind.spec.name).copied().unwrap_or_default();
        if polls {
            kind.set_poison(sight.poison);
            if sight.due || sight.poison {
                kind.wake();
            }
        }
        if let Some(in_) = sight.next {
            next.insert(kind.spec.name, now + in_);
        }
    }
    next
}

/// One statement over all kinds and priorities, each answered by the claim index alone.
async fn look(pool: &Pool, kinds: &[Arc<Kind>]) -> Result<HashMap<String, Sight>> {
    let (mut names, mut levels, mut at, mut seq) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let began = Instant::now();
    let froms: Vec<(&Arc<Kind>, From)> =
        kinds.iter().map(|kind| (kind, kind.with_cursor(|cursor| cursor.look_from()))).collect();
    for (kind, from) in &froms {
        for (level, (low_at, low_seq)) in (0_i16..).zip(from.lows()) {
            names.push(kind.spec.name.to_owned());
            levels.push(level);
            at.push(low_at);
            seq.push(low_seq);
        }
    }
    let rows = sqlx::query!(
        r#"SELECT l.kind AS "kind!", l.priority AS "priority!", d.attempt_at AS "due_at?", d.seq AS "due_seq?",
                  (SELECT extract(epoch FROM m.attempt_at - clock_timestamp())::float8 FROM mq_msgs m
                   WHERE m.channel_name = l.kind AND m.priority = l.priority AND m.attempt_at > now() AND NOT m.blocked
                     AND (m.after_message_id IS NULL OR m.after_message_id = '00000000-0000-0000-0000-000000000000')
                   ORDER BY m.attempt_at LIMIT 1) AS next_s,
                  EXISTS (SELECT FROM mq_msgs m WHERE m.channel_name = l.kind AND m.deaths > 0
                            AND m.attempt_at <= now()) AS "poison!"
           FROM unnest($1::text[], $2::smallint[], $3::timestamptz[], $4::bigint[]) l (kind, priority, low_at, low_seq)
           LEFT JOIN LATERAL (
             SELECT m.attempt_at, m.seq FROM mq_msgs m
             WHERE m.channel_name = l.kind AND m.priority = l.priority AND (m.attempt_at, m.seq) > (l.low_at, l.low_seq)
               AND m.attempt_at <= now() AND NOT m.blocked AND (m.leased_until IS NULL OR m.leased_until < now())
               AND (m.after_message_id IS NULL OR m.after_message_id = '00000000-0000-0000-0000-000000000000')
             ORDER BY m.attempt_at, m.seq LIMIT 1) d ON true"#,
        &names,
        &levels,
        &at,
        &seq,
    )
    .fetch_all(pool)
    .await?;
    for (kind, from) in &froms {
        kind.with_cursor(|cursor| cursor.advance(from, &[], began.elapsed()));
    }
    let mut sights: HashMap<String, Sight> = HashMap::new();
    for row in rows {
        let due = row.due_at.zip(row.due_seq);
        if let Some((place, (kind, _))) = due.zip(froms.iter().find(|(kind, _)| kind.spec.name == row.kind)) {
            kind.with_cursor(|cursor| cursor.found(row.priority, place));
        }
        let sight = sights.entry(row.kind).or_default();
        let next = row.next_s.map(|s| Duration::try_from_secs_f64(s).unwrap_or_default());
        sight.due |= due.is_some();
        sight.poison |= row.poison;
        sight.next = [sight.next, next].into_iter().flatten().min();
    }
    Ok(sights)
}

/// Listens on a connection of its own. While it is down, polls find what there is.
async fn listen(runtime: &Runtime) {
    let draining = runtime.tasks().draining().clone();
    while !draining.is_cancelled() {
        if let Err(error) = hear(runtime, &draining).await {
            tracing::warn!(%error, "can't listen for new jobs; polling goes on");
            runtime.tasks().pause(backoff::jitter(BROKEN)).await;
        }
    }
}

async fn hear(runtime: &Runtime, draining: &CancellationToken) -> Result<(), sqlx::Error> {
    let mut listener = Listener::of(&runtime.pools().bookkeeping, "poller").await?;
    listener.listen_to([wake::CHANNEL, wake::STOCK_CHANNEL]).await?;
    wake_all(runtime);
    loop {
        let heard = tokio::select! {
            heard = listener.hear() => heard?,
            () = draining.cancelled() => return Ok(()),
        };
        match heard {
            Some(notification) if !notification.payload().is_empty() => heed(runtime, notification.payload()),
            // A stock producer does not say which, and while the connection was down nobody did.
            _ => wake_all(runtime),
        }
    }
}

fn heed(runtime: &Runtime, payload: &str) {
    for word in payload.split(',') {
        if let Some(job_id) = word.strip_prefix('!') {
            if let Ok(job_id) = job_id.parse() {
                runtime.jobs().cancel(job_id);
            }
        } else if word == wake::EVENTS {
            runtime.waker().heard_of_events();
        } else if let Some(kind) = runtime.jobs().kinds().get(word) {
            kind.wake();
        }
    }
    runtime.jobs().rescan().notify_one();
}

fn wake_all(runtime: &Runtime) {
    for kind in runtime.jobs().running_kinds() {
        kind.wake();
    }
}
