//! What the runtime knows of jobs, as the contract says it.
use gavel_proto::v1;
use gavel_runtime::{
    job::inspect::{State, Try, View},
    wire::timestamp,
};

/// A job; its arguments and the whole history only where one was asked for.
pub(crate) fn shown_job(job: View, whole: bool) -> v1::Job {
    let state = match job.state {
        State::Waiting => v1::JobState::Waiting,
        State::Scheduled => v1::JobState::Scheduled,
        State::Blocked => v1::JobState::Blocked,
        State::Running => v1::JobState::Running,
        State::Dead => v1::JobState::Dead,
        State::Exhausted => v1::JobState::Exhausted,
    };
    let last_error = job.errors.last().map(|last| last.error.clone()).unwrap_or_default();
    let error = |error: Try| v1::JobError {
        at: Some(timestamp(error.at)),
        r#try: error.number,
        class: error.class,
        error: error.error,
    };
    v1::Job {
        job_id: job.job_id.to_string(),
        kind: job.kind,
        state: state.into(),
        key: job.key,
        priority: job.priority.into(),
        enqueued_at: Some(timestamp(job.enqueued_at)),
        // It is never due again.
        at: (job.state != State::Exhausted).then(|| timestamp(job.at)),
        tries: job.tries,
        tries_left: job.tries_left,
        last_error,
        correlation_id: job.correlation_id,
        args: if whole { job.args } else { String::new() },
        errors: if whole { job.errors.into_iter().map(error).collect() } else { Vec::new() },
    }
}
