//! A database as the last release has left it, with rows in it, and an operator who changes its schema.
use crate::{Process, System, eventually, process::binary};
use gavel::{
    rights::RIGHTS,
    schema::{EXPAND, WIDE_BID_AMOUNTS},
};
use gavel_accounts::postgres::Role;
use gavel_runtime::schema::rights;
use secrecy::SecretString;
use serde_json::Value;
use sqlx::{PgPool, error::DatabaseError, migrate::Migrator};
use std::borrow::Cow;

/// Handlers that only a worker runs that is started for them.
pub const MIGRATING: &[&str] = &["--also", "run_backfill_chunk,run_online_step"];

/// Users whose count is not what their bids say.
pub const MISCOUNTED: &str = "SELECT count(*) FROM (
    SELECT bidder_id AS user_id, currency, count(DISTINCT item_id) AS n FROM bids JOIN items USING (item_id) GROUP BY 1, 2) b
  FULL JOIN user_stats s USING (user_id, currency) WHERE s.items_bid_on IS DISTINCT FROM b.n";

impl System {
    /// As the release before the changes has left it, with so many bids of 97 users on items of 100 bids each; then
    /// expanded.
    pub async fn with_old_bids(bids: i32) -> Self {
        let system = Self::new().await;
        system.have_old_bids(bids).await;
        system
    }

    /// Makes its database so, whatever it had.
    pub async fn have_old_bids(&self, bids: i32) {
        self.as_before(WIDE_BID_AMOUNTS - 2).await;
        for statement in [
            "INSERT INTO items (item_id, seller_id, title, currency, start_price_minor, ladder_version, price_minor,
                                leader_id, bid_count, version, starts_at, ends_at)
             SELECT md5('item' || i)::uuid, 'sam', 'An old lamp', CASE WHEN i % 2 = 0 THEN 'EUR' ELSE 'USD' END, 100, 1,
                    20000, 'user-1', 100, 101, now() - interval '1 day', now() + interval '1 day'
             FROM generate_series(0, ($1 - 1) / 100) i",
            "INSERT INTO bids (bid_id, item_id, sequence, bidder_id, amount_minor, decided_at)
             SELECT gen_random_uuid(), md5('item' || (n / 100))::uuid, 2 + n % 100, 'user-' || (n % 97),
                    100 + n % 100, now() FROM generate_series(0, $1 - 1) n",
            "INSERT INTO user_items (user_id, item_id) SELECT DISTINCT bidder_id, item_id FROM bids WHERE $1 > 0",
            "INSERT INTO user_stats (user_id, currency, bids_placed)
             SELECT bidder_id, currency, count(*) FROM bids JOIN items USING (item_id) WHERE $1 > 0 GROUP BY 1, 2",
            "SELECT FROM items WHERE $1 > 0",
        ] {
            sqlx::query(statement).bind(bids).execute(&self.db).await.expect("old rows");
        }
        self.bidctl(&["migrate"]).await.expect("expanded");
    }

    /// Expanded and nothing more: every form of everything is there.
    pub async fn expanded() -> Self {
        let system = Self::new().await;
        system.expand_anew().await;
        system
    }

    /// Empties the database, and gives it every form of everything.
    pub(crate) async fn expand_anew(&self) {
        self.as_before(i64::try_from(EXPAND.iter().count()).expect("a small number")).await;
    }

    /// Empties the database and applies the migrations up to that number, as the release that had them.
    async fn as_before(&self, newest: i64) {
        let owner = PgPool::connect(self.database_url(Role::Migrator)).await.expect("the owner is let in");
        for statement in ["DROP SCHEMA public CASCADE", "CREATE SCHEMA public"] {
            sqlx::query(statement).execute(&owner).await.expect("emptied");
        }
        let count = usize::try_from(newest).expect("a small number");
        let old = Migrator { migrations: Cow::Borrowed(&EXPAND.migrations[..count]), ..Migrator::DEFAULT };
        old.run(&owner).await.expect("migrated");
        owner.close().await;
        let url = SecretString::from(self.database_url(Role::Migrator));
        assert!(rights::grant(&url, "gavel", &EXPAND, RIGHTS).await.expect("granted"), "there are roles");
    }

    /// Starts bidctl over the database itself, as its owner.
    pub fn start_bidctl(&self, arguments: &[&str]) -> Process {
        Process::start(
            &binary("bidctl"),
            arguments,
            &self.variables(&[("DATABASE_URL", self.database_url(Role::Migrator)), ("USER", "tess")]),
        )
    }

    /// Runs bidctl over the database itself: what it printed, or what it said of its failure.
    pub async fn bidctl(&self, arguments: &[&str]) -> Result<String, String> {
        let mut process = self.start_bidctl(arguments);
        let is_well = process.ended().await.success();
        let output = process.output().join("\n");
        if is_well { Ok(output) } else { Err(output) }
    }

    /// Has an operator make the statistics anew, as often as it takes.
    pub async fn rebuild_stats(&self) {
        let rebuilt = || self.bidctl(&["rebuild", "stats", "--reason", "queues were deleted"]);
        eventually("they are made anew", rebuilt, Result::is_ok).await.expect("made");
    }

    /// And the read model, by calls to whichever service runs.
    pub async fn rebuild_read_model(&self, ops_url: impl AsyncFn() -> String) {
        let rebuilt = || async {
            let operator = Operator::calling(self, ops_url().await);
            operator.bidctl(&["rebuild", "read-model", "--reason", "queues were deleted"]).await
        };
        eventually("it is made anew", rebuilt, Result::is_ok).await.expect("made");
    }

    /// One number. A database that is being started again is waited for.
    pub async fn count(&self, query: &str) -> i64 {
        let counted = || async {
            match sqlx::query_scalar(query).fetch_one(&self.db).await {
                Err(sqlx::Error::Database(error)) if !is_restarting(&*error) => panic!("{query}: {error}"),
                counted => counted,
            }
        };
        eventually("the database counts", counted, Result::is_ok).await.expect("counted")
    }

    /// Does something to the database.
    pub async fn run(&self, statement: &str) {
        sqlx::query(statement).execute(&self.db).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    /// Lets time go by for what waits for writes in an old form to stop, and for an old form to bake.
    pub async fn a_day_goes_by(&self) {
        self.run("UPDATE schema_meters SET changed_at = changed_at - interval '1 day'").await;
        self.run("UPDATE schema_steps SET taken_at = taken_at - interval '1 day'").await;
    }
}

/// However slow bids are on a busy machine: how a backfill heeds them is for the tests of that alone.
const HOWEVER_SLOW: [&str; 4] = ["--p99-ratio", "0", "--p99-limit-ms", "60000"];

/// Somebody with role ops, who says why.
pub struct Operator<'a> {
    system: &'a System,
    ops_url: String,
    token: String,
}

impl<'a> Operator<'a> {
    /// At that service.
    pub async fn at(system: &'a System, service: &Process) -> Self {
        Self::calling(system, format!("http://{}", service.ops_address().await))
    }

    /// At that address.
    fn calling(system: &'a System, ops_url: String) -> Self {
        Self { system, ops_url, token: system.token("olga", "ops") }
    }

    /// Runs bidctl as them: what it printed, or what it said of its failure.
    pub async fn bidctl(&self, arguments: &[&str]) -> Result<String, String> {
        self.system.bidctl(&[arguments, &self.identity()].concat()).await
    }

    /// The same, which goes on.
    pub fn start_bidctl(&self, arguments: &[&str]) -> Process {
        self.system.start_bidctl(&[arguments, &self.identity()].concat())
    }

    fn identity(&self) -> [&str; 4] {
        ["--ops-url", &self.ops_url, "--token", &self.token]
    }

    /// `bidctl schema backfill …`, as JSON.
    pub async fn backfill(&self, arguments: &[&str]) -> Result<Value, String> {
        let said = self.bidctl(&[&["--json", "schema", "backfill"], arguments].concat()).await?;
        Ok(serde_json::from_str(&said).unwrap_or(Value::String(said)))
    }

    /// `bidctl schema backfill watch`, which goes on.
    pub fn watch(&self, change: &str) -> Process {
        self.start_bidctl(&["schema", "backfill", "watch", change])
    }

    /// Starts a change's backfill and waits until every row is filled.
    pub async fn fill(&self, change: &str) {
        self.begin(change).await;
        self.done(change).await;
    }

    /// Starts a change's backfill.
    pub async fn begin(&self, change: &str) {
        let begin = ["start", change, "--reason", "the release"];
        self.backfill(&[&begin[..], &HOWEVER_SLOW].concat()).await.expect("started");
    }

    /// Lets a change's backfill go as fast as it can from here on.
    pub async fn free(&self, change: &str) {
        let free = ["retune", change, "--reason", "all is well", "--most-rows", "20000"];
        self.backfill(&[&free[..], &HOWEVER_SLOW].concat()).await.expect("retuned");
    }

    /// Waits until it is done.
    pub async fn done(&self, change: &str) {
        let state = || async { self.state(change).await };
        eventually("every row is filled", state, |backfill| backfill["state"] == "BACKFILL_STATE_DONE").await;
    }

    /// How far it is.
    pub async fn state(&self, change: &str) -> Value {
        let listed = self.backfill(&["list"]).await.expect("listed");
        let number: i64 = change.parse().expect("a number");
        let all = listed["backfills"].as_array().expect("an array");
        all.iter().find(|backfill| backfill["change"] == number).cloned().unwrap_or_default()
    }
}

/// Whether the database says that it is about to stop, or not there yet.
fn is_restarting(error: &dyn DatabaseError) -> bool {
    error.code().is_some_and(|code| code.starts_with("57P"))
}
