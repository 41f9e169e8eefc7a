//! What each program may do with the database, and what it may not, whoever has taken it over.
use gavel::rights::RIGHTS;
use gavel_accounts::postgres::{OWNER, Role, roles_sql};
use gavel_runtime::schema::rights::OWN;
use gavel_tests::{Process, System, eventually, process::binary};
use sqlx::{Connection, Executor, PgConnection, error::DatabaseError};
use std::{collections::BTreeSet, fs};

/// What PostgreSQL says where a right is missing.
const DENIED: &str = "42501";

async fn session(system: &System, role: Role) -> PgConnection {
    PgConnection::connect(system.database_url(role)).await.expect("it may log in")
}

/// What PostgreSQL says of a statement: nothing where it is allowed.
async fn refusal(conn: &mut PgConnection, statement: &str) -> Option<String> {
    let mut tx = conn.begin().await.expect("begun");
    let error = tx.execute(statement).await.err()?;
    error.as_database_error().and_then(DatabaseError::code).map(Into::into)
}

#[tokio::test]
async fn bids_spending_and_the_audit_are_only_added_to_by_the_programs() {
    let system = System::new().await;
    for role in [Role::Service, Role::Worker, Role::Operator, Role::Reader] {
        let mut conn = session(&system, role).await;
        for (table, column) in [("bids", "item_id"), ("spend_ledger", "item_id"), ("operator_actions", "reason")] {
            for statement in [
                format!("UPDATE {table} SET {column} = {column}"),
                format!("DELETE FROM {table}"),
                format!("TRUNCATE {table}"),
                format!("ALTER TABLE {table} DISABLE TRIGGER ALL"),
                format!("DROP TABLE {table}"),
            ] {
                let refused = refusal(&mut conn, &format!("SET TRANSACTION READ WRITE; {statement}")).await;
                assert_eq!(refused.as_deref(), Some(DENIED), "{role:?}: {statement}");
            }
        }
    }
}

#[tokio::test]
async fn each_program_has_what_it_needs_and_nothing_of_the_others() {
    let system = System::new().await;
    let (mut service, mut worker) = (session(&system, Role::Service).await, session(&system, Role::Worker).await);
    for forbidden in [
        "INSERT INTO spend_ledger DEFAULT VALUES",
        "SELECT FROM spend_ledger",
        "UPDATE user_stats SET bids_placed = 0",
        "DELETE FROM outbox",
        "DELETE FROM items",
    ] {
        assert_eq!(refusal(&mut service, forbidden).await.as_deref(), Some(DENIED), "{forbidden}");
    }
    for forbidden in [
        "INSERT INTO bids DEFAULT VALUES",
        "INSERT INTO items DEFAULT VALUES",
        "INSERT INTO operator_actions DEFAULT VALUES",
        "DELETE FROM user_stats",
    ] {
        assert_eq!(refusal(&mut worker, forbidden).await.as_deref(), Some(DENIED), "{forbidden}");
    }
    for conn in [&mut service, &mut worker] {
        for forbidden in [
            "CREATE TABLE mine (id bigint)",
            "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "SET ROLE gavel_owner",
            "UPDATE schema_epoch SET epoch = 0",
            "DELETE FROM _sqlx_migrations",
            "SELECT rolpassword FROM pg_authid",
            "SELECT pg_read_file('/etc/passwd')",
            "COPY items TO PROGRAM 'true'",
        ] {
            assert_eq!(refusal(conn, forbidden).await.as_deref(), Some(DENIED), "{forbidden}");
        }
    }
}

#[tokio::test]
async fn a_reader_sees_everything_and_writes_nothing() {
    let system = System::new().await;
    let mut reader = session(&system, Role::Reader).await;
    for allowed in ["SELECT count(*) FROM bids", "SELECT count(*) FROM spend_ledger"] {
        assert_eq!(refusal(&mut reader, allowed).await, None, "{allowed}");
    }
    let written = refusal(&mut reader, "SET TRANSACTION READ WRITE; INSERT INTO items DEFAULT VALUES").await;
    assert_eq!(written.as_deref(), Some(DENIED));
}

#[tokio::test]
async fn the_doctor_needs_no_more_than_an_operators_rights() {
    let system = System::new().await;
    let (service, _api) = system.service().await;
    let _worker = system.worker().await;
    let (url, ops_url) = (service.address().await, service.ops_address().await);
    let variables = system.variables(&[
        ("DATABASE_URL", system.database_url(Role::Operator)),
        ("GAVEL_URL", &format!("http://{url}")),
        ("GAVEL_OPS_URL", &format!("http://{ops_url}")),
    ]);
    let is_well = || async { Process::start(&binary("bidctl"), &["doctor"], &variables).ended().await.success() };
    eventually("the doctor finds nothing", is_well, |well| *well).await;
}

#[tokio::test]
async fn every_table_has_a_line_that_says_who_may_do_what_with_it() {
    let system = System::expanded().await;
    let lines: BTreeSet<_> = OWN.iter().chain(RIGHTS).map(|line| line.table.to_owned()).collect();
    let read = "SELECT c.relname::text FROM pg_class c
                WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'S')
                  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = c.oid AND d.deptype = 'i')";
    let found: Vec<String> = sqlx::query_scalar(read).fetch_all(&system.db).await.expect("read");
    let tables: BTreeSet<_> = found.into_iter().collect();
    assert_eq!(tables, lines, "handlers/src/rights.rs has the auction's, runtime/src/schema/rights.rs the runtime's");
}

#[tokio::test]
async fn a_database_from_before_there_were_roles_is_handed_over_and_works_under_them() {
    let system = System::new().await;
    let file = std::env::temp_dir().join(format!("{}.sql", system.name()));
    // Without accounts: their passwords are this run's.
    fs::write(&file, roles_sql(system.name(), &[])).expect("written");
    for owned in ["TABLE items", "TABLE _sqlx_migrations", "FUNCTION mq_commit(uuid[])", "TYPE mq_new_t"] {
        system.run(&format!("ALTER {owned} OWNER TO CURRENT_USER")).await;
    }
    system.run(&format!("ALTER DATABASE {} OWNER TO CURRENT_USER", system.name())).await;
    let refused = system.bidctl(&["migrate"]).await.expect_err("it is not the owner");
    assert!(refused.contains("permission denied"), "{refused}");
    for _ in 0..2 {
        let variables = system.variables(&[("DATABASE_URL", system.administrator_url())]);
        let arguments = ["prepare", "--roles", file.to_str().expect("a path")];
        let mut prepare = Process::start(&binary("bidctl"), &arguments, &variables);
        assert!(prepare.ended().await.success(), "{:?}", prepare.output());
    }
    fs::remove_file(&file).expect("removed");
    system.bidctl(&["migrate"]).await.expect("it is the owner");
    let others = format!(
        "SELECT count(*) FROM pg_class
         WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'S') AND relowner <> '{OWNER}'::regrole"
    );
    assert_eq!(system.count(&others).await, 0);
}
