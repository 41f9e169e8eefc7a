//! Jobs as tables and JSON.
use crate::bidctl::output::{Output, optional_time, say, time};
use gavel_proto::v1;
use serde_json::{Value, json};

/// The columns of [`as_row`].
pub(crate) const HEADER: [&str; 8] = ["job", "state", "due", "priority", "key", "tries", "left", "last error"];

pub(crate) fn as_json(job: &v1::Job) -> Value {
    json!({
        "job_id": job.job_id, "kind": job.kind, "state": job.state().as_str_name(), "key": none_if_empty(&job.key),
        "priority": job.priority, "enqueued_at": optional_time(job.enqueued_at.as_ref()),
        "at": optional_time(job.at.as_ref()), "tries": job.tries, "tries_left": job.tries_left,
        "last_error": none_if_empty(&job.last_error), "correlation_id": none_if_empty(&job.correlation_id),
    })
}

pub(crate) fn as_row(job: &v1::Job) -> Vec<String> {
    vec![
        job.job_id.clone(),
        state(job).to_owned(),
        time(job.at.as_ref()),
        priority(job),
        job.key.clone(),
        job.tries.to_string(),
        job.tries_left.to_string(),
        job.last_error.clone(),
    ]
}

/// One job with its arguments, the errors of its tries and what follows from its end.
pub(crate) fn show(found: &v1::GetJobResponse, output: Output) {
    let job = &found.job.clone().unwrap_or_default();
    let args: Value = serde_json::from_str(&job.args).unwrap_or(Value::Null);
    let error = |error: &v1::JobError| json!({ "at": optional_time(error.at.as_ref()), "try": error.r#try, "class": error.class, "error": error.error });
    if output.json {
        let mut whole = as_json(job);
        whole["args"] = args;
        whole["errors"] = job.errors.iter().map(error).collect();
        whole["consequence"] = none_if_empty(&found.consequence).into();
        output.record(&whole, &[]);
        return;
    }
    let due = if job.state() == v1::JobState::Dead { "died" } else { "due" };
    let mut lines = vec![
        ("job", job.job_id.clone()),
        ("kind", job.kind.clone()),
        ("state", state(job).to_owned()),
        ("key", job.key.clone()),
        ("priority", priority(job)),
        ("enqueued", time(job.enqueued_at.as_ref())),
        (due, time(job.at.as_ref())),
        ("tries failed", job.tries.to_string()),
        ("tries left", job.tries_left.to_string()),
        ("correlation id", job.correlation_id.clone()),
        ("args", format!("{args:#}")),
    ];
    if !found.consequence.is_empty() {
        lines.push(("if cancelled", found.consequence.clone()));
    }
    output.record(&Value::Null, &lines);
    if !job.errors.is_empty() {
        say!("");
        let row = |error: &v1::JobError| {
            vec![error.r#try.to_string(), time(error.at.as_ref()), error.class.clone(), error.error.clone()]
        };
        let rows: Vec<_> = job.errors.iter().map(row).collect();
        output.table(&Value::Null, &["try", "at", "class", "error"], &rows);
    }
}

fn state(job: &v1::Job) -> &'static str {
    match job.state() {
        v1::JobState::Waiting => "waiting",
        v1::JobState::Scheduled => "scheduled",
        v1::JobState::Blocked => "blocked",
        v1::JobState::Running => "running",
        v1::JobState::Dead => "dead",
        v1::JobState::Exhausted => "exhausted",
        v1::JobState::Unspecified => "?",
    }
}

fn priority(job: &v1::Job) -> String {
    let names = ["urgent", "high", "normal", "low"];
    usize::try_from(job.priority).ok().and_then(|at| names.get(at)).unwrap_or(&"?").to_string()
}

pub(crate) fn none_if_empty(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}
