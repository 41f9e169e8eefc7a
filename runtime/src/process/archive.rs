//! Whether PostgreSQL's log of writes is archived, as a restore to a moment needs it. Every worker looks and reports the
//! same, so take the maximum over them.
use super::sampled::Sampled;
use crate::{Runtime, postgres::Archive};
use std::time::Duration;

/// It is looked so often: a server tries again once a minute.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// Looks until the drain.
pub(super) async fn run(runtime: Runtime) {
    let archives = Sampled::default();
    let shown = archives.clone();
    let gauge = runtime.metrics().meter().i64_observable_gauge("gavel_archive_failing");
    let gauge = gauge.with_description("1 while the database's log of writes can't be archived");
    gauge
        .with_callback(move |observer| {
            shown.each(|archive: &Archive| observer.observe(archive.failing_since().is_some().into(), &[]));
        })
        .build();
    loop {
        archives.set(Archive::look(&runtime.pools().reads).await.ok().map(|archive| vec![archive]));
        if !runtime.tasks().pause(LOOK_EVERY).await {
            return;
        }
    }
}
