//! Which cases there are.
use super::{
    case::{Action, Case, First, Site},
    discover_after,
    kept::{Atlas, Met},
};

/// Handlers whose ways are looked at more closely: at later times, and in recovery.
const WAYS: [&str; 4] = ["place_bid", "relay_outbox", "apply_user_stats", "close_item"];
/// What they recover from.
const FIRSTS: [&str; 4] = [
    "place_bid.commit:after:kill",
    "relay_outbox.publish:after:kill",
    "apply_user_stats.commit:after:kill",
    "close_item.commit:before:kill",
];
/// Times that are looked at after the first.
const LATER: [u64; 3] = [2, 3, 4];
/// Where a sample has what everybody feels: each takes a while, and runs alone.
const SAMPLED: [&str; 3] = ["place_bid.commit", "relay_outbox.publish", "project_item.put"];

/// Of each site one case, and what everybody feels at some.
pub(super) fn sample(sites: &[Site]) -> Vec<Case> {
    let whole = sites.iter().filter(|site| SAMPLED.contains(&site.name.as_str())).flat_map(Site::cases);
    let whole = whole.filter(|case| case.action.is_felt_by_all());
    sites.iter().filter_map(Site::one_case).chain(whole).collect()
}

/// One case of each site that is met in recovery alone, of those that somebody came by when they were run.
pub(super) fn sample_in_recovery(kept: &Atlas) -> Vec<Case> {
    let cases = kept.sites.iter().filter_map(|place| place.site.one_case_after(place.after.as_ref()?));
    cases.filter(|case| !case.is_felt_by_all() && kept.cases.iter().any(|entry| entry.case == *case)).collect()
}

/// Every case there is: those that tell most come first.
pub(super) async fn every_case(sites: &[Site]) -> Vec<Case> {
    let mut cases: Vec<_> = sites.iter().flat_map(Site::cases).collect();
    cases.sort_by_key(|case| ![Action::Kill, Action::Reset].contains(&case.action));
    cases.extend(closer(sites).await);
    cases
}

/// Cases on the ways that matter most: at later times, and in recovery from another fault.
async fn closer(sites: &[Site]) -> Vec<Case> {
    let on_ways = sites.iter().filter(|site| WAYS.contains(&site.handler()));
    let mut cases: Vec<_> =
        on_ways.flat_map(|site| LATER.into_iter().flat_map(|hit| site.further(hit, None))).collect();
    for first in FIRSTS {
        let first: First = first.parse().expect("one of the table");
        let of = |site: &Site| first.site.starts_with(&format!("{}.", site.handler()));
        let met = discover_after(&first).await.restarted;
        cases.extend(met.iter().filter(|site| of(site)).flat_map(|site| site.further(1, Some(&first))));
    }
    cases
}

/// Every case of sites where nobody comes by but in the recovery from a fault.
pub(super) fn in_recovery(sites: &[Site], met: &Met) -> Vec<Case> {
    let met = met.iter().filter(|(site, _)| !sites.contains(site));
    met.filter_map(|(site, after)| Some(site.further(1, Some(after.as_ref()?)))).flatten().collect()
}

/// Whether it is on one of the ways that matter most.
pub(super) fn is_on_a_way(case: &Case) -> bool {
    WAYS.iter().any(|way| case.site.starts_with(&format!("{way}.")))
}

/// Of two faults after which somebody came by there, the one with which it has more to do comes first.
pub(super) fn likelier<'f>(site: &Site, first: &'f First) -> impl Ord + use<'f> {
    let is_of_another = !first.site.starts_with(&format!("{}.", site.handler()));
    (first.action.is_felt_by_all(), is_of_another, first)
}
