//! Named places where a test can make this process fail.
//!
//! `GAVEL_FAILPOINTS=site=abort@3` aborts the process (as kill -9 would) the third time it comes by `site`; `panic` in
//! place of `abort` panics, and `*` in place of the number does it each time. Several are separated by commas. Unset, a
//! site costs one comparison. Production never sets it: start-up logs a warning when it is there.
//!
//! [`testing`](crate::testing) does the same to a worker in a thread: see `Script`.
use std::{
    cell::RefCell,
    collections::HashMap,
    panic::resume_unwind,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};
use tokio_util::sync::CancellationToken;

/// The variable.
pub const VARIABLE: &str = "GAVEL_FAILPOINTS";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Abort,
    Panic,
}

#[derive(Debug)]
struct Plan {
    action: Action,
    /// Each time where none.
    at_hit: Option<u64>,
    hits: AtomicU64,
}

static PLANS: OnceLock<HashMap<String, Plan>> = OnceLock::new();

/// Reads the plan. Without this call no site ever fails.
///
/// # Errors
/// Says which part of the variable can't be read, and what is allowed.
pub fn arm(plan: &str) -> Result<(), String> {
    let plans = plan.split(',').filter(|part| !part.is_empty()).map(parse).collect::<Result<_, _>>()?;
    PLANS.set(plans).map_err(|_| "faults are armed already".to_owned())
}

fn parse(part: &str) -> Result<(String, Plan), String> {
    let refuse =
        || format!("{part:?} is no fault; allowed: site=abort@hit or site=panic@hit, hit from 1, or * for each");
    let (site, rest) = part.split_once('=').ok_or_else(refuse)?;
    let (action, hit) = rest.split_once('@').ok_or_else(refuse)?;
    let action = match action {
        "abort" => Action::Abort,
        "panic" => Action::Panic,
        _ => return Err(refuse()),
    };
    let at_hit = match hit {
        "*" => None,
        hit => Some(hit.parse().ok().filter(|hit| *hit > 0).ok_or_else(refuse)?),
    };
    Ok((site.to_owned(), Plan { action, at_hit, hits: AtomicU64::new(0) }))
}

/// A place that can fail. `stage` says where in the handler's run it lies.
///
/// # Panics
/// When a plan says so.
pub fn hit(handler: &str, stage: &str) {
    perform(handler, stage);
    if PLANS.get().is_some() {
        fail_as_planned(&format!("{handler}.{stage}"));
    }
}

/// A place that can fail for one of those that come by: the site is `handler.stage.who`.
///
/// # Panics
/// When a plan says so.
pub fn hit_for(handler: &str, stage: &str, who: &str) {
    if PLANS.get().is_some() {
        fail_as_planned(&format!("{handler}.{stage}.{who}"));
    }
}

fn fail_as_planned(site: &str) {
    let Some(plan) = PLANS.get().and_then(|plans| plans.get(site)) else { return };
    let hit = plan.hits.fetch_add(1, Ordering::Relaxed) + 1;
    if plan.at_hit.is_some_and(|at_hit| at_hit != hit) {
        return;
    }
    match plan.action {
        Action::Abort => std::process::abort(),
        Action::Panic => panic!("fault injected at {site}"),
    }
}

/// What happens to this thread's worker when it comes by a site for the first time.
pub(crate) struct Script {
    handler: &'static str,
    stage: &'static str,
    act: Act,
}

enum Act {
    /// The task that came by ends there, and the token tells the thread to drop everything else.
    Kill(CancellationToken),
    /// The token says that the thread stands still, until the other end of the channel is dropped.
    Freeze(CancellationToken, mpsc::Receiver<()>),
}

/// What a killed task unwinds with: nobody may catch it for a panic of the handler's.
pub(crate) struct Killed;

thread_local! {
    static SCRIPT: RefCell<Option<Script>> = const { RefCell::new(None) };
}

impl Script {
    pub(crate) fn kill(handler: &'static str, stage: &'static str, killed: CancellationToken) -> Self {
        Self { handler, stage, act: Act::Kill(killed) }
    }

    /// Also gives the token that says when it is frozen, and what keeps it so until it is dropped.
    pub(crate) fn freeze(handler: &'static str, stage: &'static str) -> (Self, CancellationToken, mpsc::Sender<()>) {
        let (frozen, (thaw, wait)) = (CancellationToken::new(), mpsc::channel());
        (Self { handler, stage, act: Act::Freeze(frozen.clone(), wait) }, frozen, thaw)
    }

    pub(crate) fn perform_on_this_thread(self) {
        SCRIPT.set(Some(self));
    }
}

fn perform(handler: &str, stage: &str) {
    let due = |script: &mut Script| script.handler == handler && script.stage == stage;
    let Some(script) = SCRIPT.with_borrow_mut(|script| script.take_if(due)) else { return };
    match script.act {
        Act::Kill(killed) => {
            killed.cancel();
            resume_unwind(Box::new(Killed));
        }
        Act::Freeze(frozen, wait) => {
            frozen.cancel();
            // Ends when the other side is dropped.
            let _ = wait.recv();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_read_or_refused_by_name() {
        let (site, plan) = parse("relay.after_confirm=abort@3").unwrap();
        assert_eq!((site.as_str(), plan.action, plan.at_hit), ("relay.after_confirm", Action::Abort, Some(3)));
        for bad in ["x", "x=abort", "x=melt@1", "x=abort@0", "x=abort@many"] {
            assert!(parse(bad).unwrap_err().contains(bad));
        }
    }
}
