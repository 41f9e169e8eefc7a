//! What each program may do with the database, and what it may not, whoever has taken it over.
use chrono::{TimeDelta, Utc};
use gavel::rights::{RIGHTS, role_of};
use gavel_accounts::postgres::{OWNER, Role, roles_sql};
use gavel_runtime::schema::rights::OWN;
use gavel_tests::{
    Process, System,
    atlas::{kept::Atlas, source::statement},
    eventually,
    private::Postgres,
    process::binary,
};
use sqlx::{Connection, Executor, PgConnection, error::DatabaseError};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};
use uuid::Uuid;

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

#[tokio::test]
async fn an_installation_is_made_as_the_guide_says_and_only_its_owner_changes_tables() {
    let server = Postgres::empty().await;
    let dir = std::env::temp_dir().join(format!("gavel-accounts-{}", server.port));
    let accounts = dir.to_str().expect("a path");
    let bidctl = async |url: &str, arguments: &[&str]| {
        let variables = [("DATABASE_URL".to_owned(), url.to_owned())];
        let mut process = Process::start(&binary("bidctl"), arguments, &variables);
        assert!(process.ended().await.success(), "{arguments:?}: {:?}", process.output());
    };
    let host = format!("127.0.0.1:{}", server.port);
    bidctl("", &["accounts", "--dir", accounts, "--postgres", &host]).await;
    let roles = dir.join("administrator/roles.sql");
    let administrator = format!("postgres://gavel@{host}/gavel");
    bidctl(&administrator, &["prepare", "--roles", roles.to_str().expect("a path")]).await;
    let url = |who: &str| fs::read_to_string(dir.join(who).join("database-url")).expect("a URL");
    bidctl(&url("migrator"), &["migrate"]).await;
    let db = PgConnection::connect(&administrator).await;
    let owners = "SELECT DISTINCT tableowner::text FROM pg_tables WHERE schemaname = 'public'";
    let owners: Vec<String> = sqlx::query_scalar(owners).fetch_all(&mut db.expect("let in")).await.expect("read");
    assert_eq!(owners, [OWNER]);
    let mut service = PgConnection::connect(&url("service")).await.expect("by its password");
    assert_eq!(refusal(&mut service, "DELETE FROM bids").await.as_deref(), Some(DENIED));
    assert_eq!(refusal(&mut service, "SELECT FROM bids").await, None);
    let wrong = url("service").replace("gavel_service:", "gavel_service:x");
    PgConnection::connect(&wrong).await.expect_err("another password");
    rotated(&administrator, &url("service")).await;
    fs::remove_dir_all(&dir).expect("removed");
}

/// A password is changed by a second account beside the first, whose sessions go on.
async fn rotated(administrator: &str, url: &str) {
    let mut admin = PgConnection::connect(administrator).await.expect("let in");
    let mut first = PgConnection::connect(url).await.expect("let in");
    let second = "CREATE ROLE gavel_service_2 LOGIN PASSWORD 'another' IN ROLE gavel_services";
    admin.execute(second).await.expect("made");
    let (_, rest) = url.split_once('@').expect("an account");
    let mut next = PgConnection::connect(&format!("postgres://gavel_service_2:another@{rest}")).await.expect("let in");
    for conn in [&mut first, &mut next] {
        assert_eq!(refusal(conn, "SELECT FROM bids FOR SHARE").await.as_deref(), Some(DENIED));
        assert_eq!(refusal(conn, "SELECT FROM items FOR UPDATE").await, None);
    }
    admin.execute("ALTER ROLE gavel_service NOLOGIN").await.expect("ended");
    assert_eq!(refusal(&mut first, "SELECT FROM items").await, None, "what is connected goes on until it is restarted");
    PgConnection::connect(url).await.expect_err("the first account has ended");
}

#[tokio::test]
async fn a_password_is_rotated_by_a_second_account_while_bids_go_on() {
    let system = System::new().await;
    let (mut first, api) = system.service().await;
    let item = api.with_token(system.token("sam", "seller")).create("A lamp", Utc::now() + TimeDelta::hours(1)).await;
    api.with_token(system.token("alice", "bidder")).bid(&item.item_id, 1_000).await.expect("accepted");
    let account = format!("gavel_service_{}", Uuid::new_v4().simple());
    system.run(&format!("CREATE ROLE {account} LOGIN PASSWORD 'another' IN ROLE gavel_services")).await;
    let (scheme, rest) = system.database_url(Role::Service).split_once("://").expect("a URL");
    let (_, host) = rest.rsplit_once('@').expect("an account");
    let url = format!("{scheme}://{account}:another@{host}");
    let (second, renewed) = system.service_with(&[("DATABASE_URL", &url)]).await;
    api.with_token(system.token("bob", "bidder")).bid(&item.item_id, 2_000).await.expect("accepted by the first");
    first.terminate();
    assert!(first.ended().await.success());
    renewed
        .with_token(system.token("alice", "bidder"))
        .bid(&item.item_id, 3_000)
        .await
        .expect("accepted by the second");
    renewed.with_token(system.token("sam", "seller")).create("Another", Utc::now() + TimeDelta::hours(1)).await;
    let left = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'gavel_service'";
    eventually("nobody uses the first account", || system.count(left), |sessions| *sessions == 0).await;
    drop(second);
    system.run(&format!("DROP ROLE {account}")).await;
}

/// A statement of a handler, with as many parameters as it has.
fn explained(statement: &str) -> String {
    let parameters = (1..).take_while(|number| statement.contains(&format!("${number}"))).map(|_| "NULL");
    let parameters = parameters.collect::<Vec<_>>().join(", ");
    let given = if parameters.is_empty() { String::new() } else { format!("({parameters})") };
    format!("PREPARE it AS {statement}; EXPLAIN EXECUTE it{given}; DEALLOCATE it")
}

#[tokio::test]
async fn each_handler_may_run_each_of_its_statements_as_its_role() {
    let system = System::new().await;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let atlas = Atlas::read(&root).expect("the atlas");
    let app = gavel::app();
    let mut tried = BTreeMap::new();
    for site in atlas.sites.iter().map(|place| &place.site) {
        let spec = app.registrations().iter().map(|registration| registration.spec).find(|s| s.name == site.handler());
        let (Some(spec), Some(statement)) = (spec, statement(&root, site)) else { continue };
        let role = role_of(spec);
        let mut conn = session(&system, role).await;
        assert_eq!(refusal(&mut conn, &explained(&statement)).await, None, "{} as {role:?}", site.name);
        *tried.entry(role.account()).or_insert(0) += 1;
        // Whoever only looks into the data may do none that writes.
        let writes = ["INSERT", "UPDATE", "DELETE"].iter().any(|word| statement.starts_with(word));
        if writes {
            let mut reader = session(&system, Role::Reader).await;
            let refused = refusal(&mut reader, &explained(&statement)).await;
            assert_eq!(refused.as_deref(), Some(DENIED), "{} as a reader", site.name);
        }
    }
    for role in [Role::Service, Role::Worker, Role::Migrator] {
        assert!(tried.get(role.account()).is_some_and(|count| *count > 5), "{role:?}: {tried:?}");
    }
}
