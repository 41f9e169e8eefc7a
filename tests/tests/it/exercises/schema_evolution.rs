//! A column that every row gets, and that no row may lack, while items are published.
use chrono::{TimeDelta, Utc};
use gavel::schema::EXPAND;
use gavel_tests::{
    System, eventually,
    evolving::{MIGRATING, Operator},
};

const OLD_BIDS: i32 = 40_000;

/// Constraints on the column that PostgreSQL has not yet compared with the rows.
const NOT_VALID: &str = "SELECT count(*) FROM pg_constraint WHERE conrelid = 'items'::regclass AND NOT convalidated
                         AND pg_get_constraintdef(oid) LIKE '%search_title%'";

#[tokio::test]
#[ignore = "waits for the exercise of milestone 5"]
async fn items_can_be_searched_by_title_those_of_before_too() {
    let change = EXPAND.iter().find(|migration| migration.description.ends_with("search titles"));
    let change = change.expect("migrations/expand has an NNNN_add_search_titles.sql").version.to_string();
    let system = System::with_old_bids(OLD_BIDS).await;
    let (service, api) = system.service().await;
    let _worker = system.worker_with(MIGRATING, &[]).await;
    let (operator, seller) = (Operator::at(&system, &service).await, api.with_token(system.token("susan", "seller")));
    let missing = "SELECT count(*) FROM items WHERE search_title IS DISTINCT FROM lower(title)";
    assert!(system.count(missing).await >= 400, "the expand fills no row of before: that would take a lock for long");
    seller.create("A NEW Lamp", Utc::now() + TimeDelta::hours(1)).await;
    let new = "SELECT count(*) FROM items WHERE search_title = 'a new lamp'";
    assert_eq!(system.count(new).await, 1, "programs that know nothing of the column fill it all the same");
    system.run("UPDATE items SET title = 'A NEWER Lamp' WHERE title = 'A NEW Lamp'").await;
    let changed = "SELECT count(*) FROM items WHERE search_title = 'a newer lamp'";
    assert_eq!(system.count(changed).await, 1, "and fill it anew when the title changes");
    assert!(system.count(NOT_VALID).await > 0, "the expand has a constraint that is not yet valid");
    let early = system.bidctl(&["schema", "contract", &change, "--reason", "too early"]).await;
    let why = early.expect_err("a contract before its backfill is refused");
    assert!(why.contains("backfill"), "a contract asks for its backfill: {why}");

    operator.fill(&change).await;
    assert_eq!(system.count(missing).await, 0, "the backfill fills every row");
    assert_eq!(system.count(NOT_VALID).await, 0, "the backfill's end validates the constraint");
    let contract = || async { system.bidctl(&["schema", "contract", &change, "--reason", "it is filled"]).await };
    eventually("the contract is done", contract, Result::is_ok).await.expect("contracted");
    let required = "SELECT count(*) FROM information_schema.columns
                    WHERE table_name = 'items' AND column_name = 'search_title' AND is_nullable = 'NO'";
    assert_eq!(system.count(required).await, 1, "after the contract no row may lack it");
    seller.create("ANOTHER Lamp", Utc::now() + TimeDelta::hours(1)).await;
    system.bidctl(&["schema", "revert", &change, "--reason", "to see"]).await.expect("it can be reverted");
    assert_eq!(system.count(required).await, 0, "after the revert a row may lack it again");
    seller.create("A THIRD Lamp", Utc::now() + TimeDelta::hours(1)).await;
    assert_eq!(system.count(missing).await, 0, "and yet none does");
}
