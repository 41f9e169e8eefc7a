//! A table by a migration: named, explained, linted, and open to those who need it.
use gavel_tests::System;

#[tokio::test]
#[ignore = "waits for the exercise of milestone 1"]
async fn sellers_have_figures_of_their_own() {
    let system = System::new().await;
    let columns: Vec<(String, String, String)> = sqlx::query_as(
        "SELECT column_name::text, data_type::text, is_nullable::text FROM information_schema.columns
         WHERE table_name = 'seller_stats' ORDER BY ordinal_position",
    )
    .fetch_all(&system.db)
    .await
    .expect("looked");
    assert!(!columns.is_empty(), "a migration makes the table seller_stats");
    let figure = |name: &str| (name.to_owned(), "bigint".to_owned(), "NO".to_owned());
    let seller = ("seller_id".to_owned(), "text".to_owned(), "NO".to_owned());
    assert_eq!(columns, [seller, figure("items_published"), figure("items_cancelled")], "its columns");
    system.run("INSERT INTO seller_stats (seller_id) VALUES ('sam')").await;
    assert_eq!(super::figures(&system, "sam").await, (0, 0), "figures begin at zero");
    for (wrong, why) in [
        ("INSERT INTO seller_stats (seller_id) VALUES ('sam')", "a seller has one row"),
        ("UPDATE seller_stats SET items_published = -1", "no figure is below zero"),
        ("UPDATE seller_stats SET items_cancelled = -1", "no figure is below zero"),
    ] {
        assert!(sqlx::query(wrong).execute(&system.db).await.is_err(), "{why}");
    }
    assert_eq!(
        system
            .count("SELECT count(*) FROM pg_class WHERE relname = 'seller_stats' AND obj_description(oid) <> ''")
            .await,
        1,
        "the table has a comment"
    );
    let linted = system.bidctl(&["schema", "lint"]).await;
    assert!(linted.is_ok(), "bidctl schema lint finds nothing: {}", linted.unwrap_or_else(|said| said));
    for (role, right, has) in [
        ("gavel_services", "SELECT, INSERT, UPDATE", true),
        ("gavel_workers", "SELECT, INSERT, UPDATE", true),
        ("gavel_services", "DELETE", false),
        ("gavel_workers", "DELETE", false),
        ("gavel_operators", "SELECT, INSERT, UPDATE, DELETE", false),
    ] {
        for right in right.split(", ") {
            let asked = sqlx::query_scalar::<_, bool>("SELECT has_table_privilege($1, 'seller_stats', $2)");
            let found = asked.bind(role).bind(right).fetch_one(&system.db).await.expect("looked");
            assert_eq!(found, has, "handlers/src/rights.rs gives {role} {right}: {has}");
        }
    }
}
