//! What processes say of themselves at one moment, and what has become of it since the moment before.
use prometheus_parse::{HistogramCount, Sample, Scrape, Value};
use std::{collections::BTreeMap, io, time::Instant};

/// Metrics of some processes, as Prometheus would read them.
pub(super) struct Sampled {
    at: Instant,
    samples: Vec<Sample>,
}

/// Labels that a series must have.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

impl Sampled {
    pub(super) fn parse(at: Instant, texts: &[&String]) -> io::Result<Self> {
        let mut samples = Vec::new();
        for text in texts {
            samples.extend(Scrape::parse(text.lines().map(|line| Ok(line.to_owned())))?.samples);
        }
        Ok(Self { at, samples })
    }

    fn of<'a>(&'a self, metric: &'a str, labels: Labels<'a>) -> impl Iterator<Item = &'a Sample> {
        let has = move |sample: &Sample| labels.iter().all(|(name, value)| sample.labels.get(name) == Some(value));
        self.samples.iter().filter(move |sample| sample.metric == metric && has(sample))
    }

    /// Of a counter, or of a gauge that each process has its own part of: all together.
    pub(super) fn sum(&self, metric: &str, labels: Labels<'_>) -> f64 {
        // Of none it is zero, and not the negative one that an empty sum is.
        self.of(metric, labels).filter_map(number).fold(0.0, |sum, value| sum + value)
    }

    /// Of a gauge that is the same in every process.
    pub(super) fn max(&self, metric: &str, labels: Labels<'_>) -> Option<f64> {
        self.of(metric, labels).filter_map(number).reduce(f64::max)
    }

    pub(super) fn min(&self, metric: &str, labels: Labels<'_>) -> Option<f64> {
        self.of(metric, labels).filter_map(number).reduce(f64::min)
    }

    /// What a label says, over all series of a metric.
    pub(super) fn values(&self, metric: &str, label: &str) -> Vec<String> {
        let mut values: Vec<_> =
            self.of(metric, &[]).filter_map(|sample| sample.labels.get(label).map(str::to_owned)).collect();
        values.sort();
        values.dedup();
        values
    }

    /// Of a histogram, how many there are up to each boundary.
    fn counts(&self, metric: &str, labels: Labels<'_>) -> BTreeMap<u64, (f64, f64)> {
        let mut counts: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
        for sample in self.of(metric, labels) {
            let Value::Histogram(buckets) = &sample.value else { continue };
            for HistogramCount { less_than, count } in buckets {
                counts.entry(less_than.to_bits()).or_insert((*less_than, 0.0)).1 += count;
            }
        }
        counts
    }
}

fn number(sample: &Sample) -> Option<f64> {
    match sample.value {
        Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => Some(value),
        Value::Histogram(_) | Value::Summary(_) => None,
    }
}

/// Two moments.
pub(super) struct Since<'a> {
    pub(super) before: &'a Sampled,
    pub(super) now: &'a Sampled,
}

impl Since<'_> {
    fn seconds(&self) -> f64 {
        (self.now.at - self.before.at).as_secs_f64().max(0.001)
    }

    /// A counter's growth a second. One that has begun anew has grown by all that it has.
    pub(super) fn rate(&self, metric: &str, labels: Labels<'_>) -> f64 {
        let (before, now) = (self.before.sum(metric, labels), self.now.sum(metric, labels));
        (if now < before { now } else { now - before }) / self.seconds()
    }

    /// How many a second a histogram has recorded.
    pub(super) fn recorded(&self, metric: &str, labels: Labels<'_>) -> f64 {
        self.grown(metric, labels).last().map_or(0.0, |(_, count)| count / self.seconds())
    }

    /// The value that this part of what was recorded is below, by its boundaries; none where nothing was.
    pub(super) fn quantile(&self, part: f64, metric: &str, labels: Labels<'_>) -> Option<f64> {
        let grown = self.grown(metric, labels);
        let wanted = grown.last().map(|(_, count)| count * part).filter(|wanted| *wanted > 0.0)?;
        let (mut below, mut from) = (0.0, 0.0);
        for (upto, count) in grown {
            if count >= wanted {
                let within = (wanted - below) / (count - below).max(f64::MIN_POSITIVE);
                return Some(if upto.is_finite() { from + (upto - from) * within } else { from });
            }
            (below, from) = (count, upto);
        }
        None
    }

    /// By boundary, how many more there are up to it.
    fn grown(&self, metric: &str, labels: Labels<'_>) -> Vec<(f64, f64)> {
        let before = self.before.counts(metric, labels);
        let more = |(bits, (upto, count)): (u64, (f64, f64))| {
            let had = before.get(&bits).map_or(0.0, |(_, count)| *count);
            (upto, if count < had { count } else { count - had })
        };
        let mut grown: Vec<_> = self.now.counts(metric, labels).into_iter().map(more).collect();
        grown.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        grown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampled(calls: u32, quick: u32) -> Sampled {
        let text = format!(
            "# TYPE calls counter\ncalls{{outcome=\"ok\"}} {calls}\n# TYPE took histogram\n\
             took_bucket{{le=\"0.1\"}} {quick}\ntook_bucket{{le=\"0.2\"}} {calls}\ntook_bucket{{le=\"+Inf\"}} {calls}\n\
             took_sum 1\ntook_count {calls}\n"
        );
        Sampled::parse(Instant::now(), &[&text]).expect("metrics")
    }

    #[test]
    fn rates_and_quantiles_are_of_what_came_between() {
        let (before, mut now) = (sampled(100, 100), sampled(300, 200));
        now.at = before.at + std::time::Duration::from_secs(2);
        let since = Since { before: &before, now: &now };
        assert!((since.rate("calls", &[("outcome", "ok")]) - 100.0).abs() < 1e-6);
        assert!((since.recorded("took", &[]) - 100.0).abs() < 1e-6);
        assert!((since.quantile(0.75, "took", &[]).expect("some") - 0.15).abs() < 1e-6);
        assert_eq!(since.quantile(0.5, "nothing", &[]), None);
    }

    #[test]
    fn a_process_that_began_anew_has_grown_by_what_it_has() {
        let (before, mut now) = (sampled(300, 200), sampled(10, 10));
        now.at = before.at + std::time::Duration::from_secs(1);
        assert!((Since { before: &before, now: &now }.rate("calls", &[]) - 10.0).abs() < 1e-6);
    }
}
