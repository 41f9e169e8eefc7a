//! What a process holds: connections of the public's, those of its pools, and where its reads find what they look for.
use crate::{Runtime, base::held::Held, postgres::Pool};
use opentelemetry::{KeyValue, metrics::AsyncInstrument};

/// Shows them; gives what the public's connections are counted with.
pub(super) fn observe(runtime: &Runtime) -> Held {
    pools(runtime);
    lookups(runtime);
    let open = Held::default();
    let (gauge, counted) = (runtime.metrics().meter().i64_observable_gauge("gavel_connections"), open.clone());
    let gauge = gauge.with_description("Connections of the public's that are open");
    gauge.with_callback(move |observer| observer.observe(counted.count(), &[])).build();
    open
}

fn pools(runtime: &Runtime) {
    type Figure = fn(&Pool) -> usize;
    let gauges: [(&'static str, &'static str, Figure); 4] = [
        ("gavel_pool_size", "The most connections that it may have", Pool::size),
        ("gavel_pool_connections", "Connections that it has", Pool::open),
        ("gavel_pool_in_use", "Connections of it that somebody works with", Pool::in_use),
        ("gavel_pool_waiting", "How many wait for one of its connections", Pool::waiting),
    ];
    for (name, description, figure) in gauges {
        let pools = runtime.pools().named();
        let each = move |observer: &dyn AsyncInstrument<u64>| {
            for (name, pool) in &pools {
                observer.observe(figure(pool) as u64, &[KeyValue::new("pool", *name)]);
            }
        };
        let gauge = runtime.metrics().meter().u64_observable_gauge(name).with_description(description);
        gauge.with_callback(each).build();
    }
}

fn lookups(runtime: &Runtime) {
    let lookups = runtime.cache().lookups();
    let counter = runtime.metrics().meter().u64_observable_counter("gavel_cache_lookups");
    let counter = counter.with_description("Reads through the read model, by where the value came from");
    let each = move |observer: &dyn AsyncInstrument<u64>| {
        for (source, count) in lookups.counts() {
            observer.observe(count, &[KeyValue::new("source", source)]);
        }
    };
    counter.with_callback(each).build();
}
