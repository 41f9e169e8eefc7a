//! Which build runs, and what its process takes of the machine.
use crate::base::clock;
use opentelemetry::{
    KeyValue,
    metrics::{AsyncInstrument, Meter},
};

/// Says which build this is, and what its process takes of the machine, where the system tells.
pub(super) fn observe(meter: &Meter) {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
    let started = clock::wall().timestamp_millis() as f64 / 1e3;
    let build = [
        KeyValue::new("version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("revision", option_env!("GAVEL_REVISION").unwrap_or("unknown")),
    ];
    let info =
        meter.u64_observable_gauge("gavel_build_info").with_description("Always 1; what this process was built of");
    info.with_callback(move |observer| observer.observe(1, &build)).build();
    figure(meter, "process_start_time_seconds", "When it started, since 1970", move || Some(started));
    figure(meter, "process_resident_memory_bytes", "Memory that it holds", resident_bytes);
    figure(meter, "process_open_fds", "Files and connections that it has open", open_files);
    figure(meter, "process_max_fds", "How many it may have open", most_files);
    let seconds = meter.f64_observable_counter("process_cpu_seconds").with_description("Processors' time that it took");
    seconds.with_callback(|observer| told(observer, processor_seconds())).build();
}

/// A gauge that says nothing where nothing is known.
fn figure(
    meter: &Meter,
    name: &'static str,
    description: &'static str,
    read: impl Fn() -> Option<f64> + Send + Sync + 'static,
) {
    let gauge = meter.f64_observable_gauge(name).with_description(description);
    gauge.with_callback(move |observer| told(observer, read())).build();
}

fn told(observer: &dyn AsyncInstrument<f64>, value: Option<f64>) {
    if let Some(value) = value {
        observer.observe(value, &[]);
    }
}

/// The fields of /proc/self/stat after the program's name, which may have spaces in it.
fn stat(field: usize) -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    text.rsplit_once(") ")?.1.split(' ').nth(field)?.parse().ok()
}

/// In ticks of a hundredth of a second, as every Linux has them; user's and system's are fields 14 and 15.
fn processor_seconds() -> Option<f64> {
    Some((stat(11)? + stat(12)?) / 100.0)
}

fn resident_bytes() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok().map(|kb| kb * 1024.0)
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand")]
fn open_files() -> Option<f64> {
    std::fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as f64)
}

fn most_files() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_seen() {
        assert!(resident_bytes().is_some_and(|bytes| bytes > 1e5));
        assert!(open_files().is_some_and(|files| files > 2.0));
        assert!(most_files() > open_files());
        assert!(processor_seconds().is_some_and(|seconds| seconds < 600.0));
    }
}
