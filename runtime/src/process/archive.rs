//! Whether PostgreSQL's log of writes is archived, as a restore to a moment needs it. Every worker looks and reports the
//! same, so take the maximum over them.
use crate::{Runtime, postgres::Archive};
use std::{
    sync::{
        Arc,
        atomic::{AtomicI8, Ordering},
    },
    time::Duration,
};

/// It is looked so often: a server tries again once a minute.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// Where it could not be seen.
const UNKNOWN: i8 = -1;

/// Looks until the drain.
pub(super) async fn run(runtime: Runtime) {
    let fails = Arc::new(AtomicI8::new(UNKNOWN));
    let shown = fails.clone();
    let gauge = runtime.metrics().meter().i64_observable_gauge("gavel_archive_failing");
    let gauge = gauge.with_description("1 while the database's log of writes can't be archived");
    gauge
        .with_callback(move |observer| match shown.load(Ordering::Relaxed) {
            UNKNOWN => {}
            fails => observer.observe(fails.into(), &[]),
        })
        .build();
    loop {
        let found = Archive::look(&runtime.pools().reads).await;
        fails.store(found.map_or(UNKNOWN, |archive| archive.failing_since().is_some().into()), Ordering::Relaxed);
        if !runtime.tasks().pause(LOOK_EVERY).await {
            return;
        }
    }
}
