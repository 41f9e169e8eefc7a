//! Gauges of the schema's changes, sampled from the database by every process. Each reports the same, so take the
//! maximum over them.
use super::sampled::Sampled;
use crate::{
    Runtime,
    changes::Phase,
    schema::backfill::{Plan, ops},
};
use opentelemetry::{KeyValue, metrics::Meter};
use std::time::Duration;

/// Interval at which the plans are looked at.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);

/// Samples until the drain, where there is anything to be seen.
pub(super) async fn run(runtime: Runtime) {
    if !runtime.pools().evolution.is_watched() {
        return;
    }
    let plans = Sampled::default();
    register(runtime.metrics().meter(), &plans);
    register_phases(&runtime);
    loop {
        plans.set(ops::list(&runtime.pools().reads).await.ok());
        if !runtime.tasks().pause(SAMPLE_EVERY).await {
            return;
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn register(meter: &Meter, plans: &Sampled<Plan>) {
    type Figure = fn(&Plan) -> f64;
    let gauges: [(&'static str, &'static str, Figure); 7] = [
        ("gavel_backfill_rows_estimated", "Rows of this walk, as far as is known", |plan| plan.rows_estimated as f64),
        ("gavel_backfill_rows_passed", "Rows walked, in this walk", |plan| plan.rows_passed as f64),
        ("gavel_backfill_rows_per_second", "Rows a second, lately", |plan| plan.rate),
        ("gavel_backfill_running", "1 while it runs", |plan| f64::from(plan.state == "running")),
        ("gavel_backfill_paused", "1 while it is paused, by whomever", |plan| f64::from(plan.state == "paused")),
        ("gavel_backfill_waiting", "1 while it runs and waits for something", |plan| {
            f64::from(plan.state == "running" && !plan.throttled_by.is_empty())
        }),
        ("gavel_backfill_online", "1 while it runs and makes indexes and constraints, which may take hours", |plan| {
            f64::from(plan.state == "running" && plan.stage == "online")
        }),
    ];
    for (name, description, figure) in gauges {
        let plans = plans.clone();
        let gauge = meter.f64_observable_gauge(name).with_description(description);
        gauge
            .with_callback(move |observer| {
                plans.each(|plan| observer.observe(figure(plan), &[KeyValue::new("change", plan.name.clone())]));
            })
            .build();
    }
}

/// How far each change has come, as this process goes by it.
fn register_phases(runtime: &Runtime) {
    let gauge = runtime.metrics().meter().u64_observable_gauge("gavel_schema_phase");
    let gauge = gauge.with_description("0 expanded, 1 filled, 2 contracted, 3 dropped, as this process goes by it");
    let evolution = runtime.pools().evolution.clone();
    gauge
        .with_callback(move |observer| {
            for change in evolution.history().iter().filter(|change| change.outlasts_expand()) {
                let phase = match evolution.phase(change.number) {
                    Phase::Expanded => 0,
                    Phase::Filled => 1,
                    Phase::Contracted => 2,
                    Phase::Dropped => 3,
                };
                observer.observe(phase, &[KeyValue::new("change", change.name.clone())]);
            }
        })
        .build();
}
