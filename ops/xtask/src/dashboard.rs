//! The dashboard of a running Gavel, as Grafana reads it: made from the table below, so that a panel is a line. And the
//! rules of ops/observability as Prometheus' operator takes them on Kubernetes.
use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Value, json};
use std::fs;

/// Where it is kept.
const FILE: &str = "ops/observability/dashboard.json";
/// The rules, and where they are kept as an object of Kubernetes.
const RULES: [&str; 2] = ["objectives.yml", "alerts.yml"];
const RULES_FILE: &str = "ops/k8s/components/monitoring/rules.yaml";
/// Panels of a row, and the cells of Grafana's grid.
const PER_ROW: usize = 3;
const CELLS: usize = 24;
const HEIGHT: usize = 8;

/// Write ops/observability/dashboard.json, for Grafana, and the rules for Kubernetes.
#[derive(Args)]
pub(crate) struct Dashboard {
    /// Only check that it is up to date
    #[arg(long)]
    check: bool,
}

/// A picture: its title, its unit, and what is drawn, each query with its legend.
struct Panel {
    title: &'static str,
    unit: &'static str,
    queries: &'static [(&'static str, &'static str)],
}

const fn panel(title: &'static str, unit: &'static str, queries: &'static [(&'static str, &'static str)]) -> Panel {
    Panel { title, unit, queries }
}

/// Rows, from what users feel to what it stands on. Gauges of queues and backlogs are the same in every process.
const ROWS: &[(&str, &[Panel])] = &[
    (
        "Bids",
        &[
            panel(
                "Bids a second, by outcome",
                "ops",
                &[(
                    r#"sum by (outcome) (rate(gavel_handler_invocations_total{handler="place_bid"}[1m]))"#,
                    "{{outcome}}",
                )],
            ),
            panel(
                "Time until a bid is decided",
                "s",
                &[
                    (
                        r#"histogram_quantile(0.5, sum by (le) (rate(gavel_handler_duration_seconds_bucket{handler="place_bid"}[1m])))"#,
                        "p50",
                    ),
                    (
                        r#"histogram_quantile(0.99, sum by (le) (rate(gavel_handler_duration_seconds_bucket{handler="place_bid"}[1m])))"#,
                        "p99",
                    ),
                ],
            ),
            panel(
                "Bids that failed, and that were slow, of all over an hour",
                "percentunit",
                &[("gavel:bids_failed:ratio_rate1h", "not answered"), ("gavel:bids_slow:ratio_rate1h", "slow")],
            ),
            panel(
                "Bids decided together",
                "short",
                &[(
                    r#"sum(rate(gavel_handler_batch_size_sum{handler="place_bid"}[1m])) / sum(rate(gavel_handler_batch_size_count{handler="place_bid"}[1m]))"#,
                    "mean",
                )],
            ),
            panel(
                "Calls rejected, by reason",
                "ops",
                &[(
                    "sum by (handler, reason) (rate(gavel_handler_rejected_total[1m])) or vector(0)",
                    "{{handler}} {{reason}}",
                )],
            ),
            panel(
                "Streams and connections",
                "short",
                &[
                    (r#"sum by (handler) (gavel_handler_in_flight{trigger="stream"})"#, "{{handler}}"),
                    ("sum(gavel_connections)", "connections"),
                ],
            ),
        ],
    ),
    (
        "Auctions and jobs",
        &[
            panel(
                "How late auctions are closed",
                "s",
                &[(
                    r#"histogram_quantile(0.99, sum by (le) (rate(gavel_job_lateness_seconds_bucket{kind="close_item"}[5m])))"#,
                    "p99",
                )],
            ),
            panel("Jobs that wait", "short", &[("max by (kind) (gavel_job_queue_waiting)", "{{kind}}")]),
            panel(
                "Age of the oldest job that is due",
                "ms",
                &[("max by (kind) (gavel_job_queue_oldest_age_ms)", "{{kind}}")],
            ),
            panel("Jobs that run", "short", &[("max by (kind) (gavel_job_queue_running)", "{{kind}}")]),
            panel("Workers", "short", &[("max by (kind) (gavel_job_queue_workers)", "{{kind}}")]),
            panel(
                "Failed for good",
                "short",
                &[("max by (kind) (gavel_job_queue_dead)", "{{kind}}"), ("max(gavel_messages_parked)", "messages")],
            ),
        ],
    ),
    (
        "Events",
        &[
            panel("Events in the outbox", "short", &[("max(gavel_outbox_events)", "events")]),
            panel("Age of the oldest of them", "ms", &[("max(gavel_outbox_oldest_age_ms)", "oldest")]),
            panel(
                "Age of an event when it is applied, p99",
                "s",
                &[(
                    "histogram_quantile(0.99, sum by (le, handler) (rate(gavel_event_age_seconds_bucket[5m])))",
                    "{{handler}}",
                )],
            ),
            panel(
                "Events applied a second",
                "ops",
                &[("sum by (handler) (rate(gavel_event_age_seconds_count[1m]))", "{{handler}}")],
            ),
            panel(
                "Reads of the read model, by source",
                "ops",
                &[("sum by (source) (rate(gavel_cache_lookups_total[1m]))", "{{source}}")],
            ),
        ],
    ),
    (
        "What it stands on",
        &[
            panel("Dependencies", "short", &[("min by (dependency) (gavel_dependency_up)", "{{dependency}}")]),
            panel(
                "Connections to PostgreSQL in use",
                "short",
                &[("sum by (pool) (gavel_pool_in_use)", "{{pool}}"), ("sum(gavel_pool_waiting)", "waiting")],
            ),
            panel("Memory", "bytes", &[(r#"process_resident_memory_bytes{job=~"gavel-.*"}"#, "{{instance}}")]),
            panel(
                "Processors",
                "short",
                &[(r#"rate(process_cpu_seconds_total{job=~"gavel-.*"}[1m])"#, "{{instance}}")],
            ),
            panel(
                "Versions",
                "short",
                &[("count by (version, revision) (gavel_build_info)", "{{version}} {{revision}}")],
            ),
            panel(
                "Phases of changes of the schema",
                "short",
                &[("max by (change) (gavel_schema_phase)", "{{change}}")],
            ),
        ],
    ),
];

impl Dashboard {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        for (name, text) in [(FILE, serde_json::to_string_pretty(&dashboard())? + "\n"), (RULES_FILE, rules()?)] {
            let file = crate::root().join(name);
            if !self.check {
                fs::write(&file, text).with_context(|| file.display().to_string())?;
            } else if fs::read_to_string(&file)? != text {
                bail!("{name} is not what it is made from: run `cargo xtask dashboard`");
            }
        }
        Ok(())
    }
}

/// Both files' groups in one object.
fn rules() -> anyhow::Result<String> {
    let mut text = "# Written by `cargo xtask dashboard` from ops/observability.\napiVersion: monitoring.coreos.com/v1\n\
                    kind: PrometheusRule\nmetadata: { name: gavel, labels: { app.kubernetes.io/component: monitoring } }\n\
                    spec:\n  groups:\n"
        .to_owned();
    for file in RULES {
        let own = fs::read_to_string(crate::root().join("ops/observability").join(file))?;
        let (_, groups) = own.split_once("groups:\n").with_context(|| format!("{file} has no groups"))?;
        for line in groups.lines() {
            text += if line.is_empty() { "" } else { "  " };
            text += line;
            text += "\n";
        }
    }
    Ok(text)
}

fn dashboard() -> Value {
    let (mut panels, mut top) = (Vec::new(), 0);
    for (row, (title, pictures)) in ROWS.iter().enumerate() {
        panels.push(json!({
            "type": "row", "title": title, "id": row + 1, "collapsed": false, "panels": [],
            "gridPos": { "x": 0, "y": top, "w": CELLS, "h": 1 },
        }));
        top += 1;
        for (place, picture) in pictures.iter().enumerate() {
            let (x, y) = (place % PER_ROW * (CELLS / PER_ROW), top + place / PER_ROW * HEIGHT);
            panels.push(drawn(picture, (row + 1) * 100 + place, (x, y)));
        }
        top += pictures.len().div_ceil(PER_ROW) * HEIGHT;
    }
    json!({
        "title": "Gavel", "uid": "gavel", "schemaVersion": 39, "timezone": "utc", "refresh": "10s",
        "time": { "from": "now-1h", "to": "now" }, "tags": ["gavel"], "panels": panels,
        "templating": { "list": [{ "name": "source", "type": "datasource", "query": "prometheus" }] },
    })
}

fn drawn(Panel { title, unit, queries }: &Panel, id: usize, (x, y): (usize, usize)) -> Value {
    let source = json!({ "type": "prometheus", "uid": "${source}" });
    let targets: Vec<_> = queries
        .iter()
        .zip('A'..)
        .map(|((expr, legend), name)| {
            json!({ "refId": name.to_string(), "expr": expr, "legendFormat": legend, "datasource": source })
        })
        .collect();
    json!({
        "type": "timeseries", "id": id, "title": title, "datasource": source, "targets": targets,
        "fieldConfig": { "defaults": { "unit": unit, "min": 0 }, "overrides": [] },
        "gridPos": { "x": x, "y": y, "w": CELLS / PER_ROW, "h": HEIGHT },
    })
}
