//! Bids decided many at a time: each gets the verdict it would have got alone, and can learn it by its key.
use crate::asked::{Answer, Asked, ONE_LANE, agree, hold_up, items, ledger, lock, wait_for_calls, wait_for_waiting};
use futures_util::future::join_all;
use gavel_proto::v1::BidRefusalReason;
use gavel_tests::{Api, Process, System, eventually};
use poem_grpc::Code;
use std::collections::BTreeMap;
use tokio::task::JoinHandle;
use uuid::Uuid;

#[tokio::test]
async fn one_refused_one_unknown_and_one_panicking_bid_in_a_batch_of_sixty_leave_the_others_as_if_alone() {
    let system = System::new().await;
    let fault = ("GAVEL_FAILPOINTS", "place_bid.decide.mallory=panic@*");
    let (service, api) = system.service_with(&[fault, ONE_LANE]).await;
    let items = items(&system, &api, 61).await;
    let (first, free) = items.split_first().expect("61 items");
    let holder = hold_up(&system, "ann").await;
    let ahead = Asked::new("ann", first, 1_000).send(&system, &api);
    wait_for_calls(&service, 1).await;

    // The only lane is busy: these sixty are the next batch.
    let mut bids: Vec<_> =
        free.iter().enumerate().map(|(n, item)| Asked::new(&format!("bidder-{n}"), item, 2_000)).collect();
    bids[11].amount = 1;
    bids[29].item_id = Uuid::new_v4().to_string();
    "mallory".clone_into(&mut bids[47].bidder);
    let sent: Vec<_> = bids.iter().map(|bid| bid.send(&system, &api)).collect();
    wait_for_calls(&service, 61).await;
    let malformed = Asked::new("ann", "no-uuid", 1_000).ask(&system, &api).await.expect_err("no item's id");
    assert_eq!(malformed.code, Code::InvalidArgument);
    holder.rollback().await.expect("released");
    assert_eq!(ahead.await.expect("sent").expect("accepted").sequence, 2);
    for (n, (bid, answer)) in bids.iter().zip(sent).enumerate() {
        let answer = answer.await.expect("sent");
        match n {
            11 => {
                let refused = answer.expect_err("too low").refused.expect("it says why");
                assert_eq!(refused.reason(), BidRefusalReason::BelowMinimum);
                assert_eq!(refused.next_minimum_minor, 1_000);
            }
            29 => assert_eq!(answer.expect_err("no such item").code, Code::NotFound),
            47 => assert_eq!(answer.expect_err("it panics").code, Code::Internal),
            _ => {
                let reply = answer.unwrap_or_else(|failure| panic!("{}: {failure:?}", bid.bidder));
                assert_eq!((reply.sequence, reply.price_minor), (2, 2_000));
            }
        }
    }
    let together = |line: &serde_json::Value| line["batch"] == 60;
    eventually("sixty were one batch", || async { service.log().iter().any(together) }, |found| *found).await;
    let ledger = ledger(&system).await;
    assert_eq!(ledger.len(), 58);
    assert!(!ledger.values().any(|(bidder, _)| bidder == "mallory"));
    let events: i64 = sqlx::query_scalar("SELECT count(*) FROM outbox WHERE routing_key = 'bid.accepted'")
        .fetch_one(&system.db)
        .await
        .expect("counted");
    assert_eq!(events, 58, "an event for each accepted bid, none for the others");
}

/// Of a batch of bids on these, what it does not hold while it waits for the first of them; none where that was seen
/// too late, when it had given up waiting.
async fn not_held(
    system: &System,
    (service, api): &(Process, Api),
    (ahead, items): (&str, &[String]),
    amount: i64,
) -> Option<Vec<String>> {
    let holder = hold_up(system, "ann").await;
    let ahead = Asked::new("ann", ahead, amount).send(system, api);
    wait_for_calls(service, 1).await;
    // The only lane is busy: these are the next batch.
    let bids: Vec<_> = items.iter().rev().map(|item| Asked::new("bob", item, amount)).collect();
    let sent: Vec<_> = bids.iter().map(|bid| bid.send(system, api)).collect();
    wait_for_calls(service, 1 + items.len()).await;
    let first = lock(system, &items[..1]).await;
    holder.rollback().await.expect("released");
    wait_for_waiting(system, 1).await;
    let free =
        "SELECT item_id::text FROM items WHERE item_id = ANY($1::uuid[]) ORDER BY item_id FOR UPDATE SKIP LOCKED";
    let free: Vec<String> = sqlx::query_scalar(free).bind(&items[1..]).fetch_all(&system.db).await.expect("looked");
    let waits = "SELECT count(*) FROM pg_stat_activity
                 WHERE datname = current_database() AND wait_event_type = 'Lock'
                   AND clock_timestamp() - xact_start < interval '240 milliseconds'";
    let waits: i64 = sqlx::query_scalar(waits).fetch_one(&system.db).await.expect("looked");
    first.rollback().await.expect("released");
    for answer in sent.into_iter().chain([ahead]) {
        let _ = answer.await.expect("sent");
    }
    sqlx::raw_sql("DROP FUNCTION hold_up CASCADE").execute(&system.db).await.expect("dropped");
    (waits == 1).then_some(free)
}

#[tokio::test]
async fn a_batch_that_waits_for_one_item_holds_none_that_comes_after_it() {
    const TRIES: i64 = 8;
    let system = System::new().await;
    let served = system.service_with(&[ONE_LANE]).await;
    let mut items = items(&system, &served.1, 9).await;
    let ahead = items.remove(0);
    items.sort_unstable();
    for nth in 1..=TRIES {
        if let Some(free) = not_held(&system, &served, (&ahead, &items), nth * 100_000).await {
            assert_eq!(free, items[1..], "what it does not hold, nobody waits for: a circle can't come about");
            return;
        }
    }
    panic!("it was never seen while it waited");
}

#[tokio::test]
async fn random_concurrent_bids_over_two_services_equal_a_replay_in_sequence_order() {
    let system = System::new().await;
    let ((_one, first), (_two, second)) = (system.service().await, system.service().await);
    let items = items(&system, &first, 12).await;
    // A fixed sequence that looks random: a linear congruential generator.
    let mut state = 42_u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((state >> 33) % below).expect("small")
    };
    let bids: Vec<_> = (0..600)
        .map(|_| {
            let item = &items[random(12)];
            Asked::new(&format!("bidder-{}", random(25)), item, 900 + random(40) as i64 * 50)
        })
        .collect();
    let sent = bids.iter().enumerate().map(|(n, bid)| bid.send(&system, if n % 2 == 0 { &first } else { &second }));
    let answers = join_all(sent.collect::<Vec<_>>()).await;

    let ledger = ledger(&system).await;
    // The states each item went through: its next minimum after each accepted bid.
    let mut minima: BTreeMap<&str, Vec<i64>> = items.iter().map(|item| (item.as_str(), vec![1_000])).collect();
    let mut sequences: BTreeMap<&str, i64> = BTreeMap::new();
    for ((item, sequence), (bidder, amount)) in &ledger {
        let states = minima.get_mut(item.as_str()).expect("one of the items");
        let before = *states.last().expect("a minimum");
        assert!(*amount >= before, "{bidder}'s bid {sequence} of {amount} on {item} is below {before}");
        states.push(
            gavel_rules::Ladder::V1
                .next_minimum_minor(1_000, Some(*amount), gavel_rules::MAX_AMOUNT_MINOR)
                .expect("far below the ceiling"),
        );
        let last = sequences.entry(item).or_insert(1);
        assert_eq!(*sequence, *last + 1, "gapless");
        *last = *sequence;
    }
    let mut accepted = 0;
    for (bid, answer) in bids.iter().zip(answers) {
        match answer.expect("sent") {
            Ok(reply) => {
                accepted += 1;
                let found = ledger.get(&(bid.item_id.clone(), reply.sequence)).expect("in the ledger");
                assert_eq!(found, &(bid.bidder.clone(), bid.amount));
            }
            Err(failure) => {
                let refused = failure.refused.as_ref().unwrap_or_else(|| panic!("no refusal: {failure:?}"));
                assert!(bid.amount < refused.next_minimum_minor, "refused though it was enough: {refused:?}");
                assert!(
                    minima[bid.item_id.as_str()].contains(&refused.next_minimum_minor),
                    "no such state: {refused:?}"
                );
            }
        }
    }
    assert_eq!(accepted, ledger.len(), "each acknowledged bid once, and no other");
    assert!(accepted > 12, "some were accepted");
    // One that is done again is seen by nobody, and costs a second.
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    let deadlocks: i64 = sqlx::query_scalar(deadlocks).fetch_one(&system.db).await.expect("counted");
    assert_eq!(deadlocks, 0, "items are locked in one order");
}

#[tokio::test]
async fn a_service_killed_while_a_batch_is_deciding_leaves_bids_that_can_be_asked_for_by_their_keys() {
    for (stage, stays) in [("before_commit", false), ("after_commit", true)] {
        let system = System::new().await;
        let fault = format!("place_bid.{stage}=abort@2");
        let (mut doomed, api) = system.service_with(&[("GAVEL_FAILPOINTS", &fault)]).await;
        let item = items(&system, &api, 1).await.remove(0);
        let holder = lock(&system, std::slice::from_ref(&item)).await;
        let mut bids = vec![Asked::new("ann", &item, 1_000)];
        let mut sent = vec![bids[0].send(&system, &api)];
        wait_for_waiting(&system, 1).await;
        for n in 0..30 {
            let bid = Asked::new(&format!("bidder-{n}"), &item, 2_000 + n * 100);
            sent.push(bid.send(&system, &api));
            bids.push(bid);
        }
        wait_for_calls(&doomed, 31).await;
        holder.rollback().await.expect("released");
        assert!(!doomed.ended().await.success(), "the service was meant to die");
        // The first was committed before; whether its answer still came through is for the key to tell.
        let answers = join_all(sent).await;
        assert!(
            answers.into_iter().skip(1).all(|answer| answer.expect("sent").is_err()),
            "the batch was never answered"
        );
        let committed = ledger(&system).await.len();
        assert_eq!(committed > 1, stays, "{stage}: {committed} bids are in the ledger");

        let (_service, api) = system.service().await;
        let accepted = agree(&system, &api, &bids).await;
        assert!(!stays || accepted == committed, "asking changed nothing: {accepted} and {committed}");
    }
}

#[tokio::test]
async fn clients_that_leave_or_run_out_of_time_while_their_batch_waits_learn_by_their_keys_what_became_of_it() {
    let system = System::new().await;
    let (service, api) = system.service().await;
    let item = items(&system, &api, 1).await.remove(0);
    let holder = lock(&system, std::slice::from_ref(&item)).await;
    let bids: Vec<_> = (0..20).map(|n| Asked::new(&format!("bidder-{n}"), &item, 1_000 + n * 100)).collect();
    let first = bids[0].send(&system, &api);
    wait_for_waiting(&system, 1).await;
    let leaving: Vec<_> = bids[1..10].iter().map(|bid| bid.send(&system, &api)).collect();
    let short_lock_timeout = api.with_header("grpc-timeout", "200m");
    let late: Vec<_> = bids[10..].iter().map(|bid| bid.send(&system, &short_lock_timeout)).collect();
    for answer in join_all(late).await {
        assert_eq!(answer.expect("sent").expect_err("the lock is held").code, Code::DeadlineExceeded);
    }
    wait_for_calls(&service, 10).await;
    first.abort();
    leaving.iter().for_each(JoinHandle::abort);
    holder.rollback().await.expect("released");
    agree(&system, &api, &bids).await;
}

#[tokio::test]
async fn a_bid_that_was_decided_is_told_to_who_asks_again_though_its_item_is_locked_since() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let item = items(&system, &api, 1).await.remove(0);
    let bid = Asked::new("ann", &item, 1_000);
    let first = bid.ask(&system, &api).await.expect("accepted");
    let holder = lock(&system, std::slice::from_ref(&item)).await;
    assert_eq!(bid.ask(&system, &api).await.expect("told while the lock is held"), first);
    holder.rollback().await.expect("released");
}

#[tokio::test]
async fn items_that_are_locked_hold_up_nobody_else_however_many_they_are() {
    let system = System::new().await;
    let (service, api) = system.service().await;
    let items = items(&system, &api, 13).await;
    let (free, held) = items.split_first().expect("13 items");
    let holder = lock(&system, held).await;
    let stuck: Vec<_> = held.iter().map(|item| Asked::new("ann", item, 1_000)).collect();
    let sent: Vec<_> = stuck.iter().map(|bid| bid.send(&system, &api)).collect();
    wait_for_calls(&service, held.len()).await;
    let other = Asked::new("bob", free, 1_000);
    for n in 0..3 {
        // While the locks are held: no lane waits for them.
        let raised = Asked { amount: 1_000 + n * 100, key: Uuid::new_v4().to_string(), ..other.clone() };
        raised.ask(&system, &api).await.expect("accepted meanwhile");
    }
    assert!(!sent.iter().any(JoinHandle::is_finished), "the others still wait");
    holder.rollback().await.expect("released");
    for answer in sent {
        assert_eq!(answer.await.expect("sent").expect("accepted in the end").sequence, 2);
    }
    assert_eq!(ledger(&system).await.len(), stuck.len() + 3);
}

#[tokio::test]
async fn a_contested_item_takes_so_many_bids_and_refuses_the_rest_at_once_while_others_go_on() {
    let system = System::new().await;
    let (service, api) = system.service().await;
    let items = items(&system, &api, 2).await;
    let holder = lock(&system, &items[..1]).await;
    let bids: Vec<_> = (0..300).map(|n| Asked::new(&format!("bidder-{}", n % 50), &items[0], 1_000 + n * 50)).collect();
    let mut sent: Vec<_> = bids.iter().map(|bid| bid.send(&system, &api)).collect();
    wait_for_calls(&service, 256).await;
    // Refused while the lock is still held: nobody waited for it.
    let rejected = || async { sent.iter().filter(|answer| answer.is_finished()).count() };
    eventually("the rest is refused", rejected, |count| *count == 300 - 256).await;
    let other = Asked::new("ann", &items[1], 1_000);
    assert_eq!(other.ask(&system, &api).await.expect("the other item has a lane").sequence, 2);
    holder.rollback().await.expect("released");
    let answers: Vec<_> = join_all(sent.drain(..)).await.into_iter().map(|answer| answer.expect("sent")).collect();
    let exhausted = |answer: &&Answer| answer.as_ref().is_err_and(|failure| failure.code == Code::ResourceExhausted);
    assert_eq!(answers.iter().filter(exhausted).count(), 300 - 256);
    agree(&system, &api, &[bids, vec![other]].concat()).await;
}

#[tokio::test]
async fn a_saturated_pool_of_readers_does_not_slow_bids() {
    let system = System::new().await;
    let (_service, api) = system.service_with(&[("GAVEL_READ_POOL_SIZE", "2")]).await;
    let item = items(&system, &api, 1).await.remove(0);
    let mut holder = system.db.begin().await.expect("a transaction");
    sqlx::query("LOCK TABLE user_stats IN ACCESS EXCLUSIVE MODE").execute(&mut *holder).await.expect("locked");
    let readers: Vec<_> = (0..12)
        .map(|_| {
            let alice = api.with_token(system.token("alice", "bidder"));
            tokio::spawn(async move { alice.stats("").await })
        })
        .collect();
    wait_for_waiting(&system, 2).await;
    for n in 0..20 {
        Asked::new("bob", &item, 1_000 + n * 100).ask(&system, &api).await.expect("accepted meanwhile");
    }
    wait_for_waiting(&system, 2).await;
    assert!(!readers.iter().all(JoinHandle::is_finished), "readers are still waiting");
    holder.rollback().await.expect("released");
    join_all(readers).await;
}

#[tokio::test]
async fn the_highest_of_simultaneous_bids_leads_though_a_lower_one_lies_within_a_step_of_it() {
    let system = System::new().await;
    let (service, api) = system.service().await;
    let item = items(&system, &api, 1).await.remove(0);
    let holder = lock(&system, std::slice::from_ref(&item)).await;
    let ahead = Asked::new("ann", &item, 1).send(&system, &api);
    wait_for_waiting(&system, 1).await;
    // The step at 1 000 is 50: accepted first, the lower one would leave no room for the higher.
    let lower = Asked::new("bob", &item, 1_000).send(&system, &api);
    let higher = Asked::new("cem", &item, 1_040).send(&system, &api);
    wait_for_calls(&service, 3).await;
    holder.rollback().await.expect("released");
    assert!(ahead.await.expect("sent").is_err(), "too low");
    assert_eq!(higher.await.expect("sent").expect("the highest").price_minor, 1_040);
    let refused = lower.await.expect("sent").expect_err("it came too late").refused.expect("it says why");
    assert_eq!(refused.next_minimum_minor, 1_090);
}
