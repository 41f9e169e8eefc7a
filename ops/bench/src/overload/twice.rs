//! Twice as many bids as there can be: as many are accepted as before, and the others are told so soon.
use super::{CONNECTIONS, GOODPUT, ITEMS, REJECTED_WITHIN_MS};
use crate::{
    bids::{
        Bench, TIME, WARM_UP,
        load::{self, Lots, Tally, percentile},
    },
    extent,
    report::{Row, above, below, beside, median},
};
use anyhow::Context;

/// The peak of clients that each wait for their answer, and then twice as many bids as that. What is accepted of those
/// may be more: an open load's calls share writes. Then that is a peak as well, and twice as many as that are sent,
/// until no more are accepted.
///
/// The load comes from the same processors, and twice as much of it takes more of them: so the goodput is also given
/// for each second of the processors' time that the load left.
pub(super) async fn run(bench: &Bench<'_>, rounds: usize) -> anyhow::Result<Vec<Row>> {
    let (mut ratios, mut strict, mut left) = (Vec::new(), Vec::new(), Vec::new());
    let (mut twice, mut last) = (Vec::new(), None);
    for number in 1..=rounds {
        let (closed, service) = bench.closed(extent::count(ITEMS), 256, extent::time(TIME)).await?;
        drop(service);
        let (mut peak, mut first) = (closed.clone(), None);
        loop {
            let per_second = peak.accepted_per_second();
            eprintln!("  … round {number} of {rounds}: peak {per_second:.0} bids/s; now twice as many are sent");
            let (tally, memory) = open(bench, 2.0 * per_second).await?;
            let ratio = tally.accepted_per_second() / per_second;
            let (at_first, _, _) = first.get_or_insert((ratio, tally.clone(), memory));
            if ratio <= 1.05 {
                ratios.push(*at_first);
                strict.push(ratio);
                left.push(ratio * peak.processors_left() / tally.processors_left());
                break;
            }
            peak = tally;
        }
        last = Some((closed.accepted_per_second(), peak.accepted_per_second()));
        twice.extend(first.map(|(_, tally, memory)| (tally, memory)));
    }
    let (closed, peak) = last.context("no round was asked for")?;
    let of_rounds = |figure: &dyn Fn(&Tally) -> f64| median(twice.iter().map(|(tally, _)| figure(tally)).collect());
    let took = |of: &dyn Fn(&Tally) -> &[f64], percent| of_rounds(&|tally| percentile(of(tally), percent));
    let memory_mib = twice.iter().map(|(_, memory)| *memory).fold(0.0, f64::max);
    let work = "open load at twice the peak";
    let goodput = |ratios, peak: f64, of: &str, goal| {
        let ratio = median(ratios);
        beside(&format!("goodput, {work} of {of}"), "bids/s", ratio * peak, (of, peak), goal)
    };
    Ok(vec![
        goodput(ratios, closed, "256 clients that wait", GOODPUT),
        goodput(strict, peak, "an open load", GOODPUT),
        goodput(left, peak, "an open load, by what the load leaves of the processors", 0.0),
        above(
            &format!("rejected, {work}"),
            "bids/s",
            of_rounds(&|tally| f64::from(tally.rejected)) / extent::time(TIME).as_secs_f64(),
            0.0,
        ),
        below(&format!("p50 of being rejected, {work}"), "ms", took(&|tally| &tally.rejected_ms, 50), f64::INFINITY),
        below(
            &format!("p99 of being rejected, {work}"),
            "ms",
            took(&|tally| &tally.rejected_ms, 99),
            REJECTED_WITHIN_MS,
        ),
        below(
            &format!("how late the load itself is, p99, {work}"),
            "ms",
            took(&|tally| &tally.late_ms, 99),
            f64::INFINITY,
        ),
        below(&format!("p99 of a decision, {work}"), "ms", took(&|tally| &tally.decided_ms, 99), f64::INFINITY),
        below(&format!("memory of the service at most, {work}"), "MiB", memory_mib, f64::INFINITY),
    ])
}

/// So many bids a second, and the service's memory at most.
async fn open(bench: &Bench<'_>, per_second: f64) -> anyhow::Result<(Tally, f64)> {
    bench.stage(extent::count(ITEMS)).await?.close().await;
    let service = bench.service().await?;
    let tally = load::from_outside(async || {
        let clients = load::connect(&bench.releases, &service.address, CONNECTIONS).await?;
        let lots = Lots::new(extent::count(ITEMS));
        load::open(clients, &lots, per_second, extent::time(WARM_UP), extent::time(TIME)).await
    })?;
    Ok((tally, service.memory()?.1))
}
