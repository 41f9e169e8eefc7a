//! What is going on, figure by figure, as `top` shows a machine's.
mod look;
mod sampled;

use crate::bidctl::{
    client,
    output::{Output, age, say},
    settings::Settings,
    watch,
};
use clap::Args;
use look::Look;
use sampled::Since;
use serde_json::{Value, json};
use std::time::Duration;

const BIDS: [(&str, &str); 1] = [("handler", "place_bid")];

#[derive(Args)]
pub(crate) struct Top {
    /// Operators' addresses of the processes to look at; workers know of the outbox and of events [GAVEL_PROCESSES,
    /// separated by commas, else where bid-service listens to operators]
    #[arg(value_name = "URL")]
    processes: Vec<String>,
    /// Seconds between two looks
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    every: u64,
    /// Show it once
    #[arg(long)]
    once: bool,
}

impl Top {
    pub(crate) async fn run(&self, settings: &Settings, output: Output) -> anyhow::Result<()> {
        let own = settings.processes();
        let addresses = if self.processes.is_empty() { &own[..] } else { &self.processes };
        addresses.iter().try_for_each(|address| client::check_url(address))?;
        let client = client::http(settings)?;
        let mut before = Look::at(&client, addresses).await.answered()?;
        loop {
            tokio::time::sleep(Duration::from_secs(self.every)).await;
            let now = Look::at(&client, addresses).await;
            let now = if self.once { now.answered()? } else { now };
            let (earlier, later) = Look::both(&before, &now)?;
            let silent: Vec<_> = now.silent().collect();
            let figures = figures(&Since { before: &earlier, now: &later }, &silent);
            if output.json {
                say!("{figures}");
            } else {
                if !self.once {
                    watch::clear_screen();
                }
                show(&figures, output);
            }
            if self.once {
                return Ok(());
            }
            before = now;
        }
    }
}

/// Everything that is shown.
fn figures(since: &Since<'_>, silent: &[&String]) -> Value {
    let now = since.now;
    let ms = |seconds: Option<f64>| seconds.map(|seconds| (seconds * 1e6).round() / 1e3);
    let outcomes = now.values("gavel_handler_invocations_total", "outcome");
    let by_outcome = outcomes.iter().filter_map(|outcome| {
        let rate = since.rate("gavel_handler_invocations_total", &[BIDS[0], ("outcome", outcome)]);
        (rate > 0.0).then(|| (outcome.clone(), json!(rate)))
    });
    let queue = |kind: &String| {
        let figure = |name: &str| now.max(name, &[("kind", kind)]);
        json!({
            "kind": kind, "waiting": figure("gavel_job_queue_waiting"), "running": figure("gavel_job_queue_running"),
            "workers": figure("gavel_job_queue_workers"), "dead": figure("gavel_job_queue_dead"),
            "oldest_age_ms": figure("gavel_job_queue_oldest_age_ms"),
            "paused": figure("gavel_job_queue_paused").is_some_and(|paused| paused > 0.0),
            "late_p99_ms": ms(since.quantile(0.99, "gavel_job_lateness_seconds", &[("kind", kind)])),
        })
    };
    let consumer = |handler: &String| {
        let of = [("handler", handler.as_str())];
        json!({
            "handler": handler, "per_second": since.recorded("gavel_event_age_seconds", &of),
            "age_p99_ms": ms(since.quantile(0.99, "gavel_event_age_seconds", &of)),
        })
    };
    let pool = |pool: &String| {
        let figure = |name: &str| now.sum(name, &[("pool", pool)]);
        json!({
            "pool": pool, "in_use": figure("gavel_pool_in_use"), "size": figure("gavel_pool_size"),
            "waiting": figure("gavel_pool_waiting"),
        })
    };
    let is_down = |name: &String| now.min("gavel_dependency_up", &[("dependency", name)]) == Some(0.0);
    let each = |metric: &str, label: &str, show: &dyn Fn(&String) -> Value| -> Vec<Value> {
        now.values(metric, label).iter().map(show).collect()
    };
    json!({
        "bids": {
            "per_second": since.rate("gavel_handler_invocations_total", &BIDS),
            "by_outcome": by_outcome.collect::<serde_json::Map<_, _>>(),
            "rejected_per_second": since.rate("gavel_handler_rejected_total", &BIDS),
            "p50_ms": ms(since.quantile(0.5, "gavel_handler_duration_seconds", &BIDS)),
            "p99_ms": ms(since.quantile(0.99, "gavel_handler_duration_seconds", &BIDS)),
        },
        "outbox": {
            "events": now.max("gavel_outbox_events", &[]), "oldest_age_ms": now.max("gavel_outbox_oldest_age_ms", &[]),
        },
        "messages_parked": now.max("gavel_messages_parked", &[]),
        "consumers": each("gavel_event_age_seconds", "handler", &consumer),
        "streams": now.sum("gavel_handler_in_flight", &[("trigger", "stream")]),
        "connections": now.sum("gavel_connections", &[]),
        "pools": each("gavel_pool_size", "pool", &pool),
        "queues": each("gavel_job_queue_waiting", "kind", &queue),
        "silent": silent,
        "down": now.values("gavel_dependency_up", "dependency").iter().filter(|name| is_down(name)).collect::<Vec<_>>(),
    })
}

/// A figure with one place, where it is known.
fn text(value: &Value) -> String {
    value.as_f64().map_or_else(|| "–".to_owned(), |value| format!("{value:.1}"))
}

/// The same without places.
fn whole(value: &Value) -> String {
    value.as_f64().map_or_else(|| "–".to_owned(), |value| format!("{value:.0}"))
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn show(figures: &Value, output: Output) {
    let (bids, outbox) = (&figures["bids"], &figures["outbox"]);
    let outcomes = bids["by_outcome"].as_object().into_iter().flatten();
    let outcomes: Vec<_> = outcomes.map(|(outcome, rate)| format!("{outcome} {}", text(rate))).collect();
    let list = |of: &Value, line: &dyn Fn(&Value) -> String| -> String {
        let lines: Vec<_> = of.as_array().into_iter().flatten().map(line).collect();
        if lines.is_empty() { "–".to_owned() } else { lines.join("   ") }
    };
    output.record(
        figures,
        &[
            (
                "bids",
                format!(
                    "{}/s   {}   rejected {}",
                    text(&bids["per_second"]),
                    outcomes.join(" "),
                    text(&bids["rejected_per_second"])
                ),
            ),
            ("", format!("p50 {} ms   p99 {} ms", text(&bids["p50_ms"]), text(&bids["p99_ms"]))),
            (
                "outbox",
                format!(
                    "{} events   oldest {} ms   parked {}",
                    whole(&outbox["events"]),
                    whole(&outbox["oldest_age_ms"]),
                    whole(&figures["messages_parked"])
                ),
            ),
            (
                "consumers",
                list(&figures["consumers"], &|one| {
                    format!(
                        "{} {}/s, p99 {} ms old",
                        word(&one["handler"]),
                        text(&one["per_second"]),
                        text(&one["age_p99_ms"])
                    )
                }),
            ),
            (
                "clients",
                format!("{} connections   {} streams", whole(&figures["connections"]), whole(&figures["streams"])),
            ),
            (
                "pools",
                list(&figures["pools"], &|one| {
                    format!(
                        "{} {}/{}{}",
                        word(&one["pool"]),
                        whole(&one["in_use"]),
                        whole(&one["size"]),
                        if one["waiting"] == 0.0 { "" } else { " and waited for" }
                    )
                }),
            ),
            ("down", list(&figures["down"], &word)),
            ("silent", list(&figures["silent"], &word)),
        ],
    );
    show_queues(figures, output);
}

fn show_queues(figures: &Value, output: Output) {
    let queues = figures["queues"].as_array().cloned().unwrap_or_default();
    let row = |queue: &Value| {
        let count = |name: &str| whole(&queue[name]);
        #[expect(clippy::cast_possible_truncation, reason = "milliseconds")]
        let oldest = queue["oldest_age_ms"].as_f64().map_or_else(|| "–".to_owned(), |ms| age(ms as i64));
        let kind = word(&queue["kind"]) + if queue["paused"] == true { " (paused)" } else { "" };
        vec![
            kind,
            count("waiting"),
            count("running"),
            count("workers"),
            count("dead"),
            oldest,
            text(&queue["late_p99_ms"]),
        ]
    };
    let rows: Vec<_> = queues.iter().map(row).collect();
    say!("");
    output.table(figures, &["queue", "waiting", "running", "workers", "dead", "oldest", "late p99 ms"], &rows);
}
