//! How far the standby is behind that reads may go to.
use crate::{
    Runtime,
    postgres::{Follower, Standby},
};
use opentelemetry::metrics::AsyncInstrument;

/// Looks until the process ends, where there is one.
pub(super) async fn run(runtime: Runtime) {
    let Some(standby) = runtime.pools().standby.clone() else { return };
    observe(&runtime, &standby);
    let (mut follower, every) = (Follower::of(standby.clone()), standby.look_every());
    let closing = runtime.tasks().closing().clone();
    let mut was_fresh = None;
    loop {
        follower.look(&runtime.pools().reads).await;
        // The first look only begins to follow.
        let is_fresh = standby.is_fresh();
        match was_fresh.replace(is_fresh) {
            Some(true) if !is_fresh => {
                tracing::warn!("the standby is too far behind, or gone: reads go to the primary");
            }
            Some(false) if is_fresh => tracing::info!("reads that may be some moments old go to a standby"),
            _ => {}
        }
        tokio::select! {
            () = closing.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
    }
}

fn observe(runtime: &Runtime, standby: &Standby) {
    let meter = runtime.metrics().meter();
    let shown = standby.clone();
    let age = meter.f64_observable_gauge("gavel_standby_age_seconds");
    let age = age.with_description("How old may be what the standby shows; absent where that is not known");
    age.with_callback(move |observer: &dyn AsyncInstrument<f64>| {
        if let Some(age) = shown.age() {
            observer.observe(age.as_secs_f64(), &[]);
        }
    })
    .build();
    let used = standby.clone();
    let gauge = meter.u64_observable_gauge("gavel_standby_in_use");
    let gauge = gauge.with_description("1 while reads go to the standby, 0 while it is too far behind for them");
    gauge.with_callback(move |observer| observer.observe(used.is_fresh().into(), &[])).build();
}
