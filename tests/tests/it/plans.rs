//! How PostgreSQL would run each statement of the runtime and of the handlers.
use gavel_tests::System;
use serde_json::Value;
use sqlx::{Executor, Row, postgres::PgRow};
use std::{collections::BTreeMap, fs, path::Path};

/// Tables that may be read whole, since they stay small: a row for each shard, for each worker and batch at work, for
/// each cancellation of a day.
const SMALL: [&str; 5] = ["outbox_shards", "job_workers", "job_loads", "job_claims", "job_cancellations"];

/// Each statement, and how many parameters it has.
fn statements() -> BTreeMap<String, usize> {
    let kept = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../.sqlx")).expect("the statements");
    let statement = |entry: std::io::Result<fs::DirEntry>| {
        let text = fs::read_to_string(entry.expect("an entry").path()).expect("a statement");
        let described: Value = serde_json::from_str(&text).expect("JSON");
        let parameters = described["describe"]["parameters"]["Left"].as_array().map_or(0, Vec::len);
        (described["query"].as_str().expect("a statement").to_owned(), parameters)
    };
    kept.map(statement).collect()
}

/// What only statements have that are run while both forms of something are there.
const ONLY_WHILE_EXPANDED: [&str; 1] = ["coalesce(max_amount_minor, amount_minor)"];

/// What only a rebuild has, which reads everything while nobody works, once.
const REBUILDING: [&str; 4] = [
    "SELECT DISTINCT bidder_id, item_id, true FROM bids",
    "DELETE FROM spend_ledger",
    "SELECT item_id, leader_id, currency, price_minor FROM items",
    "SELECT $1, event_id FROM outbox",
];

#[tokio::test]
async fn every_statement_is_understood_by_the_schemas_on_which_it_is_run() {
    let (expanded, over) = (System::expanded().await, System::new().await);
    for (statement, _) in statements() {
        let is_old = ONLY_WHILE_EXPANDED.iter().any(|old| statement.contains(old));
        for (schema, system, is_run) in [("expanded", &expanded, true), ("dropped", &over, !is_old)] {
            let mut conn = system.db.acquire().await.expect("a connection");
            let prepared = conn.execute(format!("PREPARE planned AS {statement}").as_str()).await;
            assert_eq!(prepared.is_ok(), is_run, "{schema}: {prepared:?} of {statement}");
            if is_run {
                conn.execute("DEALLOCATE planned").await.expect("forgotten");
            }
        }
    }
}

#[tokio::test]
async fn no_statement_has_to_read_a_large_table_whole() {
    let system = System::expanded().await;
    let mut conn = system.db.acquire().await.expect("a connection");
    // Where it has any other way, the planner does not read the table.
    conn.execute("SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan").await.expect("set");
    let mut statements = statements();
    assert!(statements.len() > 80, "there are {} statements", statements.len());
    let count = statements.len();
    statements.retain(|statement, _| !REBUILDING.iter().any(|own| statement.contains(own)));
    assert_eq!(
        count - statements.len(),
        REBUILDING.len(),
        "each of a rebuild's is there, and nothing else is left out"
    );
    let mut wrong = Vec::new();
    for (statement, parameters) in statements {
        let arguments = vec!["NULL"; parameters].join(", ");
        let arguments = if parameters == 0 { arguments } else { format!("({arguments})") };
        conn.execute(format!("PREPARE planned AS {statement}").as_str()).await.expect("prepared");
        let plan = conn.fetch_all(format!("EXPLAIN EXECUTE planned{arguments}").as_str()).await.expect("a plan");
        conn.execute("DEALLOCATE planned").await.expect("forgotten");
        let plan: Vec<String> = plan.iter().map(|line: &PgRow| line.get(0)).collect();
        let tables = plan.iter().filter_map(|line| line.split("Seq Scan on ").nth(1)?.split(' ').next());
        let large: Vec<_> = tables.filter(|table| !SMALL.contains(table)).collect();
        if !large.is_empty() {
            wrong.push(format!("{large:?} read whole by {statement}\n{}", plan.join("\n")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}
