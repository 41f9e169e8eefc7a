//! The list.
use super::{
    Bug,
    Catch::{Case, Rule, Test},
    Change::{self, Autonomous, CommitBefore, ConfirmNotAwaited, Said, TakenOnDelivery},
};

/// All of them: of bids, of jobs, of events, of who reads them, of reads, of rules.
pub const BUGS: &[Bug] = &[
    Bug {
        name: "no_row_lock",
        forgotten: "two services may decide bids on one item at the same time",
        changes: &[Said("ORDER BY item_id FOR UPDATE), clock", "ORDER BY item_id), clock")],
        caught_by: Test("closing::a_bid_that_waited_for_its_item_is_decided_on_what_it_finds_then"),
        saying: "it is cancelled by then",
    },
    Bug {
        name: "locks_without_order",
        forgotten: "those who lock the same items wait for each other, unless all do it in one order",
        changes: &[Said("ORDER BY item_id FOR UPDATE", "ORDER BY item_id DESC FOR UPDATE")],
        caught_by: Test("batching::a_batch_that_waits_for_one_item_holds_none_that_comes_after_it"),
        saying: "what it does not hold, nobody waits for",
    },
    Bug {
        name: "clock_of_the_transaction",
        forgotten: "now() is when the transaction began, and the bid may have waited for its lock across the end",
        changes: &[Said("clock_timestamp() AS now FROM locked", "now() AS now FROM locked")],
        caught_by: Test("closing::a_bid_that_waited_for_its_item_across_the_end_is_too_late"),
        saying: "it came to its turn too late",
    },
    Bug {
        name: "receipt_in_another_transaction",
        forgotten: "a process may die between the bid and its receipt, and the client asks again",
        changes: &[CommitBefore("INSERT INTO idempotency_keys")],
        caught_by: Case("--site place_bid.commit --position before --action kill"),
        saying: "times: it was refused: the bid is below the next minimum",
    },
    Bug {
        name: "key_without_its_owner",
        forgotten: "two users may choose one idempotency key",
        changes: &[Said("i.principal = c.principal AND i.operation", "i.operation")],
        caught_by: Test("idempotency::a_key_used_with_another_request_is_a_clear_conflict_and_a_key_is_ones_own"),
        saying: "bob's key is not alice's",
    },
    Bug {
        name: "deadline_ignored",
        forgotten: "the server goes on with a statement that nobody waits for any more",
        changes: &[
            Said("SET LOCAL statement_timeout", "SET LOCAL gavel.statement_timeout"),
            Said("SET LOCAL lock_timeout", "SET LOCAL gavel.lock_timeout"),
        ],
        caught_by: Test("protocols::deadlines_of_every_protocol_reach_the_database"),
        saying: "nothing waits for the lock any more",
    },
    Bug {
        name: "standby_taken_for_the_primary",
        forgotten: "after a failover a connection may lead to a server that takes no writes",
        changes: &[Said("SHOW transaction_read_only", "SELECT 'off'")],
        caught_by: Test("failover::a_session_that_turned_read_only_is_not_kept"),
        saying: "by another session",
    },
    Bug {
        name: "bids_not_counted",
        forgotten: "what is kept beside the ledger has to move with it",
        changes: &[Said("bid_count = n.bid_count", "bid_count = items.bid_count")],
        caught_by: Test("contention::two_hundred_concurrent_bidders_leave_a_gapless_rising_ledger_and_one_leader"),
        saying: "internal error",
    },
    Bug {
        name: "event_in_another_transaction",
        forgotten: "a process may die between what happened and its event: a dual write",
        changes: &[CommitBefore("INSERT INTO outbox")],
        caught_by: Case("--site close_item.commit --position before --action kill"),
        saying: "the read model has everything",
    },
    Bug {
        name: "published_before_commit",
        forgotten: "what is told before its commit has not happened yet, and may never",
        changes: &[Autonomous("INSERT INTO outbox")],
        caught_by: Case("--site close_item.commit --position before --action kill"),
        saying: "events were told",
    },
    Bug {
        name: "confirm_not_awaited",
        forgotten: "a broker that has been sent a message need not have it",
        changes: &[ConfirmNotAwaited],
        caught_by: Test("relay::an_event_without_a_route_waits_with_its_error_and_goes_out_when_there_is_one"),
        saying: "the event is returned",
    },
    Bug {
        name: "events_out_of_order",
        forgotten: "the events of an item mean something only in their order",
        changes: &[Said("ORDER BY e.outbox_id", "ORDER BY e.outbox_id DESC")],
        caught_by: Test("relay::events_of_an_item_go_out_in_the_order_in_which_they_happened"),
        saying: "out of order",
    },
    Bug {
        name: "event_tried_at_once",
        forgotten: "what the broker refuses is refused again a millisecond later",
        changes: &[Said("earlier.retry_at > clock_timestamp()", "earlier.retry_at > 'infinity'")],
        caught_by: Test(
            "broker::an_event_that_the_broker_does_not_take_is_held_back_with_its_reason_and_holds_up_no_other",
        ),
        saying: "it is tried again and again",
    },
    Bug {
        name: "acknowledged_before_commit",
        forgotten: "a consumer may die with what it has taken",
        changes: &[TakenOnDelivery],
        caught_by: Case("--site apply_user_stats.commit --position before --action kill"),
        saying: "statistics are what the ledger says",
    },
    Bug {
        name: "dedupe_skipped",
        forgotten: "a broker delivers a message at least once, and that may be twice",
        changes: &[
            Said(
                "WHERE EXISTS (SELECT FROM inbox i WHERE i.consumer = $1 AND i.message_id = m.id)",
                "WHERE $1 = '' AND false",
            ),
            Said("INSERT INTO inbox (consumer, message_id) SELECT $1, id FROM unnest", "SELECT $1, id FROM unnest"),
            Said("ON CONFLICT ON CONSTRAINT inbox_pkey DO NOTHING", ""),
        ],
        caught_by: Test("relay::a_relay_killed_between_confirm_and_commit_publishes_again_and_nothing_counts_twice"),
        saying: "both copies count once",
    },
    Bug {
        name: "stats_without_the_ledger",
        forgotten: "receipts of messages are swept, and a broker may hand out what it had kept for longer",
        changes: &[
            Said(
                "INSERT INTO spend_ledger (item_id, user_id, currency, amount_minor)
         SELECT item_id, user_id, currency, amount_minor
         FROM unnest",
                "WITH entered AS (INSERT INTO spend_ledger (item_id, user_id, currency, amount_minor)
         SELECT item_id, user_id, currency, amount_minor
         FROM unnest",
            ),
            Said(
                "ON CONFLICT (item_id) DO NOTHING
         RETURNING item_id",
                "ON CONFLICT (item_id) DO NOTHING) SELECT unnest($1::uuid[]) AS item_id",
            ),
        ],
        caught_by: Test("delivery::messages_three_times_out_of_order_with_workers_killed_before_their_ack_count_once"),
        saying: "what was spent is in a ledger of its own",
    },
    Bug {
        name: "sums_overwritten",
        forgotten: "somebody else has counted meanwhile",
        changes: &[Said("s.bids_placed + excluded.bids_placed", "excluded.bids_placed")],
        caught_by: Test("delivery::messages_three_times_out_of_order_with_workers_killed_before_their_ack_count_once"),
        saying: "each message counts once",
    },
    Bug {
        name: "cache_without_compare_and_set",
        forgotten: "an older event may come after a newer one",
        changes: &[Said("tonumber(held) < tonumber(version)", "true")],
        caught_by: Test("believing::an_older_event_after_a_newer_one_leaves_what_is_shown"),
        saying: "the older one did not overwrite it",
    },
    Bug {
        name: "lease_without_fence",
        forgotten: "a worker may sleep for longer than its lease, and wake up",
        changes: &[
            Said("WHERE id = $1 AND lease_token = $2 FOR UPDATE", "WHERE id = $1 FOR UPDATE"),
            Said(
                "AND ($3::uuid IS NULL AND attempts = $2 AND lease_token IS NULL OR lease_token = $3)",
                "AND ($2::int IS NULL OR $3::uuid IS NULL)",
            ),
        ],
        caught_by: Test("jobs::a_worker_that_slept_through_its_lease_has_no_say_in_a_job_that_another_has"),
        saying: "has counted no try, and did not commit",
    },
    Bug {
        name: "tick_without_lock",
        forgotten: "there are several replicas, and each has a clock",
        changes: &[Said("WHERE schedule = $1 FOR UPDATE SKIP LOCKED", "WHERE schedule = $1")],
        caught_by: Test("probe::a_tick_happens_once_across_replicas"),
        saying: "a tick happened twice",
    },
    Bug {
        name: "tries_not_counted",
        forgotten: "a job that never works must end somewhere",
        changes: &[Said("SET attempts = attempts - 1, tries = tries + 1", "SET tries = tries + 1")],
        caught_by: Test("probe::a_job_that_fails_is_tried_again_and_one_that_never_works_is_buried_with_its_error"),
        saying: "the job is dead",
    },
    Bug {
        name: "pause_not_looked_at",
        forgotten: "an operator who has paused a queue relies on it",
        changes: &[Said("kind = $1 AND paused_at IS NOT NULL)", "kind = $1 AND false)")],
        caught_by: Test("jobs::a_paused_kind_waits_and_goes_on_when_resumed"),
        saying: "what is paused waits",
    },
    Bug {
        name: "keys_without_their_turn",
        forgotten: "jobs of one key have an order, and another worker is quick",
        changes: &[Said("AND attempt_at <= now() AND NOT blocked", "AND attempt_at <= now()")],
        caught_by: Test("jobs::jobs_of_one_key_run_in_their_order_across_workers_even_when_one_is_retried"),
        saying: "right: [\"left 0\", \"left 1\"",
    },
    Bug {
        name: "pages_overlap",
        forgotten: "a page begins after the last one's last row",
        changes: &[Said("AND sequence < $2", "AND sequence <= $2")],
        caught_by: Test("listing::lists_are_newest_first_and_pages_join_without_gap_or_overlap"),
        saying: "(3, 2000), (3, 2000)",
    },
    Bug {
        name: "end_inclusive",
        forgotten: "an auction that ends at noon takes no bid at noon",
        changes: &[Change::Rule("bidding.rs", "now >= auction.ends_at", "now > auction.ends_at")],
        caught_by: Rule("bidding::"),
        saying: "a_bid_counts_from_the_start_until_just_before_the_end",
    },
    Bug {
        name: "seller_bids",
        forgotten: "a seller who bids drives the price of their own item",
        changes: &[Change::Rule("bidding.rs", "bid.bidder == auction.seller", "false")],
        caught_by: Rule("bidding::"),
        saying: "the_seller_and_amounts_above_the_ceiling_are_refused",
    },
    Bug {
        name: "step_of_the_next_price",
        forgotten: "the step belongs to the price that there is, and begins at its bound",
        changes: &[Change::Rule("ladder.rs", "price_minor >= *from", "price_minor > *from")],
        caught_by: Rule("ladder::"),
        saying: "each_step_begins_at_its_price_and_not_before",
    },
    Bug {
        name: "closed_too_early",
        forgotten: "a worker may be early: the end is the database's to tell",
        changes: &[Change::Rule("closing.rs", "now < auction.ends_at", "false")],
        caught_by: Rule("closing::"),
        saying: "an_auction_closes_at_its_end_and_the_leader_wins",
    },
];
