//! Faults of whole servers, made with an administrator's rights: everybody feels them who is on these servers.
//!
//! Each waits, as a program does that is run: [`at_once`] and [`befall`] do it on a thread that may.
use crate::{eventually, proxy::Proxy, servers::Servers};
use sqlx::{Connection, Executor, PgConnection};
use std::{process::Command, thread};
use tokio::{runtime, task::spawn_blocking};

/// A backend that is killed takes the server with it, which recovers from its log.
const CRASH: &str = "COPY (SELECT 1) TO PROGRAM 'kill -9 $PPID'";
/// Where databases are that may run out of room.
pub const TABLESPACE: &str = "small_disk";
/// Databases that are there.
const IN_TABLESPACE: &str =
    "SELECT datname FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace WHERE spcname = $1";

/// A fault that lasts until this is dropped.
#[must_use = "it is healed when this is dropped"]
pub struct Lasting(Option<Box<dyn FnOnce() + Send>>);

impl Lasting {
    fn until(heal: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(heal)))
    }
}

impl Drop for Lasting {
    /// However a case ends: others follow.
    fn drop(&mut self) {
        if let Some(heal) = self.0.take() {
            heal();
        }
    }
}

/// Does something to a server.
pub async fn at_once<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> T {
    spawn_blocking(what).await.expect("it says what is wrong")
}

/// Makes a fault that lasts, and heals it after that.
pub async fn befall(begin: fn() -> Lasting, meanwhile: impl Future<Output = ()>) {
    let fault = at_once(begin).await;
    meanwhile.await;
    at_once(move || drop(fault)).await;
}

/// Redis is stopped and started, as those see it who reach it over this wire: connections are cut, and nothing is held
/// any more under their prefix.
pub async fn restart_cache(wire: &Proxy, prefix: &str) {
    wire.cut();
    let prefix = prefix.to_owned();
    at_once(move || empty_cache(&prefix)).await;
    wire.mend();
}

/// PostgreSQL crashes, and is back once this returns.
pub fn crash_database() {
    // Nobody is left to say how it went.
    let _ = on_its_own(async { connect().await?.execute(CRASH).await });
    sql(&["SELECT 1"]);
}

/// RabbitMQ is stopped and started.
pub fn restart_broker() {
    rabbitmqctl(&["stop_app"]);
    rabbitmqctl(&["start_app"]);
}

/// RabbitMQ believes that its memory is full: it reads nothing from publishers.
pub fn raise_alarm() -> Lasting {
    rabbitmqctl(&["set_vm_memory_high_watermark", "absolute", "1MB"]);
    Lasting::until(|| rabbitmqctl(&["set_vm_memory_high_watermark", "0.6"]))
}

/// Redis takes no writes: it misses a replica.
pub fn refuse_writes() -> Lasting {
    let miss = |replicas: u8| redis(redis::cmd("CONFIG").arg("SET").arg("min-replicas-to-write").arg(replicas));
    miss(1);
    Lasting::until(move || miss(0))
}

/// Redis holds nothing any more under that prefix.
fn empty_cache(prefix: &str) {
    const DELETE: &str =
        "local keys = redis.call('KEYS', ARGV[1]) for _, key in ipairs(keys) do redis.call('DEL', key) end";
    redis(redis::cmd("EVAL").arg(DELETE).arg(0).arg(format!("{prefix}:*")));
}

/// PostgreSQL's small disk has no room left.
pub fn fill_disk() -> Lasting {
    let fill = format!("{}/fill", small_disk());
    shell(&format!("dd if=/dev/zero of={fill} bs=1M 2>/dev/null; true"));
    Lasting::until(move || shell(&format!("rm -f {fill}")))
}

/// No commit comes back: each waits for a standby that is gone.
pub fn hang_commits() -> Lasting {
    sql(&["ALTER SYSTEM SET synchronous_standby_names = 'gone'", "SELECT pg_reload_conf()"]);
    Lasting::until(|| sql(&["ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()"]))
}

/// Every flush of PostgreSQL's log takes a tenth of a second more.
pub fn slow_disk() -> Lasting {
    sql(&[
        "ALTER SYSTEM SET commit_delay = 100000",
        "ALTER SYSTEM SET commit_siblings = 0",
        // Without it nothing is flushed, and nothing delayed.
        "ALTER SYSTEM SET fsync = on",
        "SELECT pg_reload_conf()",
    ]);
    Lasting::until(|| {
        sql(&[
            "ALTER SYSTEM RESET commit_delay",
            "ALTER SYSTEM RESET commit_siblings",
            "ALTER SYSTEM SET fsync = off",
            "SELECT pg_reload_conf()",
        ]);
    })
}

/// Returns whether PostgreSQL's disk can be made slow: not where the command line says that nothing is flushed.
pub fn can_be_slow() -> bool {
    const IS_FIXED: &str = "SELECT source = 'command line' FROM pg_settings WHERE name = 'fsync'";
    let is_fixed: sqlx::Result<bool> =
        on_its_own(async { sqlx::query_scalar(IS_FIXED).fetch_one(&mut connect().await?).await });
    !is_fixed.expect("the database says so")
}

/// Makes the small disk ready for one more database. What was there before is over.
pub fn clear_small_disk() {
    let dir = format!("{}/databases", small_disk());
    shell(&format!("mkdir -p {dir}"));
    let made = on_its_own(async {
        let mut admin = connect().await?;
        let over: Vec<String> = sqlx::query_scalar(IN_TABLESPACE).bind(TABLESPACE).fetch_all(&mut admin).await?;
        for database in over {
            admin.execute(format!("DROP DATABASE {database} WITH (FORCE)").as_str()).await?;
        }
        let known = sqlx::query("SELECT FROM pg_tablespace WHERE spcname = $1").bind(TABLESPACE);
        if known.fetch_optional(&mut admin).await?.is_none() {
            admin.execute(format!("CREATE TABLESPACE {TABLESPACE} LOCATION '{dir}'").as_str()).await?;
        }
        Ok::<_, sqlx::Error>(())
    });
    made.expect("the small disk is ready");
}

fn small_disk() -> String {
    Servers::of_this_run().small_disk.expect("these servers have no disk that may be filled")
}

/// Has RabbitMQ's own command line do something.
fn rabbitmqctl(what: &[&str]) {
    let words = Servers::of_this_run().rabbitmqctl.expect("nobody said how these servers' rabbitmqctl is called");
    let output = Command::new(&words[0]).args(&words[1..]).args(what).output().expect("rabbitmqctl runs");
    assert!(output.status.success(), "rabbitmqctl {what:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn redis(command: &redis::Cmd) {
    let client = redis::Client::open(Servers::of_this_run().redis).expect("Redis' URL");
    command.exec(&mut client.get_connection().expect("Redis answers")).expect("done");
}

/// Has the database's own machine do something.
fn shell(what: &str) {
    sql(&[&format!("COPY (SELECT 1) TO PROGRAM 'cat > /dev/null; {what}'")]);
}

/// Has the database do something, as soon as it answers.
fn sql(statements: &[&str]) {
    let done = || async {
        let mut admin = connect().await?;
        for statement in statements {
            admin.execute(*statement).await?;
        }
        Ok::<_, sqlx::Error>(())
    };
    on_its_own(eventually("the database does it", done, Result::is_ok)).expect("done");
}

async fn connect() -> sqlx::Result<PgConnection> {
    PgConnection::connect(&format!("{}/postgres", Servers::of_this_run().postgres)).await
}

/// On a thread of its own: whoever waits may be in the middle of something else.
fn on_its_own<T: Send>(what: impl Future<Output = T> + Send) -> T {
    let work = || runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(what);
    thread::scope(|scope| scope.spawn(work).join().expect("it says what is wrong"))
}
