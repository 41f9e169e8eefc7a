//! The recipes of docs/schema-evolution.md, as they stand there, while writers of both versions go on; and what becomes
//! of those who do without them.
use gavel_tests::{System, eventually};
use sqlx::{Connection, Executor, PgConnection, PgPool, error::DatabaseError};
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
};
use tokio::task::JoinHandle;

/// Writes of each program before the next phase.
const SOME: u32 = 30;

/// A recipe's blocks by their names.
type Recipe = BTreeMap<String, String>;

fn recipes() -> Vec<(String, Recipe)> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/schema-evolution.md");
    let text = fs::read_to_string(file).expect("the document");
    let sections = text.split("\n### ").skip(1).map(|section| {
        let blocks = section.split("\n```sql ").skip(1).filter_map(|rest| rest.split("\n```").next());
        let named = blocks.filter_map(|block| block.split_once('\n'));
        let recipe = named.map(|(name, sql)| (name.to_owned(), sql.to_owned())).collect();
        (section.lines().next().unwrap_or_default().to_owned(), recipe)
    });
    sections.filter(|(_, recipe): &(String, Recipe)| !recipe.is_empty()).collect()
}

/// A program of one version, which goes through its statements again and again until it is stopped.
struct Writer {
    writes: Arc<AtomicU32>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Writer {
    fn start(db: &PgPool, statements: &str, what: String) -> Self {
        let (writes, stop) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
        let statements: Vec<_> = statements.split(';').map(str::to_owned).collect();
        let (db, counted, until) = (db.clone(), writes.clone(), stop.clone());
        let task = tokio::spawn(async move {
            for statement in statements.iter().cycle() {
                if until.load(Relaxed) {
                    return;
                }
                match sqlx::query(statement).execute(&db).await {
                    Ok(_) => drop(counted.fetch_add(1, Relaxed)),
                    // A deadlock, which was ended for this one: as a handler does, it goes on.
                    Err(error) if code_of(&error) == "40P01" => {}
                    Err(error) => panic!("{what}: {statement}: {error}"),
                }
            }
        });
        Self { writes, stop, task }
    }

    async fn writes_on(&self) {
        let goal = self.writes.load(Relaxed) + SOME;
        eventually("it writes on", || async { self.writes.load(Relaxed) }, |writes| *writes >= goal).await;
    }

    async fn end(self) {
        self.stop.store(true, Relaxed);
        self.task.await.expect("no write failed");
    }
}

/// In one transaction that waits for no lock longer than 100 ms, as often as it takes.
async fn in_short_locks(db: &PgPool, sql: &str, what: &str) {
    let attempt = || async {
        let mut conn = db.acquire().await.expect("a connection");
        let mut tx = conn.begin().await.expect("begun");
        tx.execute("SET LOCAL lock_timeout = '100ms'").await.expect("set");
        match tx.execute(sql).await {
            Ok(_) => tx.commit().await.map(|()| true),
            Err(error) if code_of(&error) == "55P03" => Ok(false),
            Err(error) => Err(error),
        }
    };
    let done = eventually("it has its locks", attempt, |done| !matches!(done, Ok(false))).await;
    assert!(matches!(done, Ok(true)), "{what}: {done:?}");
}

fn code_of(error: &sqlx::Error) -> String {
    error.as_database_error().and_then(DatabaseError::code).unwrap_or_default().into_owned()
}

async fn follow(title: &str, recipe: &Recipe) {
    let system = System::new().await;
    let block = |name: &str| recipe.get(name).unwrap_or_else(|| panic!("{title} has no block {name}"));
    system.db.execute(block("setup").as_str()).await.unwrap_or_else(|error| panic!("{title}, setup: {error}"));
    let old = Writer::start(&system.db, block("old"), format!("{title}, the old program"));
    old.writes_on().await;
    in_short_locks(&system.db, block("expand"), &format!("{title}, expand")).await;
    let new = Writer::start(&system.db, block("new"), format!("{title}, the new program"));
    old.writes_on().await;
    if let Some(backfill) = recipe.get("backfill") {
        // Up to the last key there was after the expand: whatever came later has both forms.
        let last = system.count("SELECT max(last_value)::bigint FROM pg_sequences").await;
        for from in (1..=last).step_by(100) {
            let chunk = backfill.replace(":from", &from.to_string()).replace(":upto", &(from + 99).to_string());
            system.run(&chunk).await;
        }
    }
    // Each by itself: some may be in no transaction.
    for statement in recipe.get("online").map(|online| online.split(';')).into_iter().flatten() {
        system.run(statement).await;
    }
    new.writes_on().await;
    old.end().await;
    if let Some(differs) = recipe.get("differs") {
        assert_eq!(system.count(differs).await, 0, "{title}: rows differ");
    }
    for phase in ["contract", "drop"] {
        if let Some(sql) = recipe.get(phase) {
            in_short_locks(&system.db, sql, &format!("{title}, {phase}")).await;
            new.writes_on().await;
        }
    }
    new.end().await;
    assert_eq!(system.count(block("check")).await, 0, "{title}");
}

#[tokio::test]
async fn each_recipe_works_while_writers_of_both_versions_go_on() {
    let all = recipes();
    assert_eq!(all.len(), 9, "{:?}", all.iter().map(|(title, _)| title).collect::<Vec<_>>());
    for (title, recipe) in all {
        follow(&title, &recipe).await;
    }
}

async fn with_parts(rows: i32) -> (System, PgConnection, PgConnection) {
    let system = System::new().await;
    system.run("CREATE TABLE parts (id integer PRIMARY KEY, name text NOT NULL DEFAULT 'part')").await;
    sqlx::query("INSERT INTO parts (id) SELECT generate_series(1, $1)")
        .bind(rows)
        .execute(&system.db)
        .await
        .expect("rows");
    let connect = async || {
        let mut conn = PgConnection::connect(system.administrator_url()).await.expect("connected");
        conn.execute("SET lock_timeout = '300ms'").await.expect("set");
        conn
    };
    let (one, other) = (connect().await, connect().await);
    (system, one, other)
}

#[tokio::test]
async fn a_type_changed_in_place_stops_every_writer_for_as_long_as_the_table_is_written_anew() {
    let (_system, mut changer, mut writer) = with_parts(1_000).await;
    let mut change = changer.begin().await.expect("begun");
    change.execute("ALTER TABLE parts ALTER COLUMN id TYPE bigint").await.expect("changed");
    let error = writer.execute("INSERT INTO parts (id) VALUES (100000)").await.expect_err("it waits");
    assert_eq!(code_of(&error), "55P03");
    change.commit().await.expect("committed");
    writer.execute("INSERT INTO parts (id) VALUES (100000)").await.expect("and goes on after it");
}

#[tokio::test]
async fn who_selects_everything_fails_once_after_a_column_was_added() {
    let (_system, mut changer, mut reader) = with_parts(10).await;
    let everything = "SELECT * FROM parts WHERE id = 1";
    sqlx::query(everything).fetch_one(&mut reader).await.expect("read");
    changer.execute("ALTER TABLE parts ADD COLUMN colour text").await.expect("added");
    let error = sqlx::query(everything).fetch_one(&mut reader).await.expect_err("its plan is of another shape");
    assert_eq!(code_of(&error), "0A000");
}

#[tokio::test]
async fn a_change_that_waits_for_a_reader_makes_everybody_wait_behind_it() {
    let (system, mut reader, mut other) = with_parts(10).await;
    let mut reading = reader.begin().await.expect("begun");
    reading.execute("SELECT count(*) FROM parts").await.expect("read");
    let name = "SELECT name FROM parts WHERE id = 1";
    other.execute(name).await.expect("readers don't wait for each other");
    let changer = tokio::spawn({
        let db = system.db.clone();
        async move { db.execute("ALTER TABLE parts ADD COLUMN colour text").await }
    });
    let waits = || async {
        system.count("SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'parts'::regclass").await
    };
    eventually("the change waits", waits, |count| *count == 1).await;
    let error = other.execute(name).await.expect_err("it waits behind the change");
    assert_eq!(code_of(&error), "55P03");
    reading.commit().await.expect("committed");
    changer.await.expect("run").expect("changed");
}
