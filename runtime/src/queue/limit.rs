//! Limits that hold over all processes: a token bucket for rates, advisory locks as slots for concurrency.
//!
//! A slot is freed by the server when its transaction or its connection ends, so a worker that dies leaves none behind.
use crate::{
    Conn, Result,
    base::spec::Rate,
    postgres::{Connector, Pool, Purpose, tx::bounded},
};
use std::time::Duration;

/// Time for which freeing slots may take.
const FREE_TIMEOUT: Duration = Duration::from_secs(2);

/// Claims are far smaller than what a float counts exactly.
fn count(tokens: usize) -> f64 {
    f64::from(u32::try_from(tokens).unwrap_or(u32::MAX))
}

/// Takes up to `want` tokens; gives how many.
pub(crate) async fn take_tokens(pool: &Pool, kind: &str, rate: Rate, want: usize) -> Result<usize> {
    sqlx::query!("INSERT INTO job_queues (kind) VALUES ($1) ON CONFLICT DO NOTHING", kind).execute(pool).await?;
    let taken = sqlx::query_scalar!(
        r#"WITH bucket AS (
             SELECT least($2::float8, tokens + extract(epoch FROM clock_timestamp() - refilled_at)::float8 * $3) AS tokens
             FROM job_queues WHERE kind = $1 FOR UPDATE),
           taken AS (
             UPDATE job_queues q
             SET tokens = b.tokens - least($4::float8, floor(b.tokens)), refilled_at = clock_timestamp()
             FROM bucket b WHERE q.kind = $1)
           SELECT least($4::float8, floor(tokens))::bigint AS "taken!" FROM bucket"#,
        kind,
        f64::from(rate.jobs),
        f64::from(rate.jobs) / rate.per.as_secs_f64(),
        count(want),
    )
    .fetch_one(pool)
    .await?;
    Ok(usize::try_from(taken).unwrap_or_default())
}

/// Puts back what was not used.
pub(crate) async fn return_tokens(pool: &Pool, kind: &str, tokens: usize) -> Result<()> {
    if tokens > 0 {
        sqlx::query!("UPDATE job_queues SET tokens = tokens + $2 WHERE kind = $1", kind, count(tokens))
            .execute(pool)
            .await?;
    }
    Ok(())
}

/// Returns how long until there may be another token.
pub(crate) fn until_token(rate: Rate) -> Duration {
    (rate.per / rate.jobs).clamp(Duration::from_millis(1), Duration::from_secs(1))
}

/// Takes one of `across` slots until the transaction ends. False when all are taken.
pub(crate) async fn take_slot(conn: &mut Conn, kind: &str, across: u32) -> Result<bool> {
    let slot = sqlx::query_scalar!(
        r#"SELECT slot AS "slot!" FROM generate_series(1, $2::int) slot
           WHERE pg_try_advisory_xact_lock(hashtext($1), slot) LIMIT 1"#,
        kind,
        i32::try_from(across).unwrap_or(i32::MAX),
    )
    .fetch_optional(conn)
    .await?;
    Ok(slot.is_some())
}

/// A slot, and the connection that holds it: with another one it is another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    number: i32,
    connection: u64,
}

/// Slots held by a connection of their own, for runs without a transaction.
pub(crate) struct Slots {
    connector: Connector,
    kind: &'static str,
    across: i32,
    conn: Option<Conn>,
    /// PostgreSQL grants a session a lock that it has already, so what is held here is left out.
    held: Vec<i32>,
    /// Counts connections.
    connection: u64,
}

impl Slots {
    pub(crate) fn new(connector: Connector, kind: &'static str, across: u32) -> Self {
        Self {
            connector,
            kind,
            across: i32::try_from(across).unwrap_or(i32::MAX),
            conn: None,
            held: Vec::new(),
            connection: 0,
        }
    }

    /// Takes up to `want` slots.
    pub(crate) async fn take(&mut self, want: usize) -> Result<Vec<Slot>> {
        let mut conn = if let Some(conn) = self.conn.take() {
            conn
        } else {
            // With the connection before this one its slots were freed.
            self.held.clear();
            self.connection += 1;
            self.connector.connect(self.kind, Purpose::Work).await?
        };
        let taken = sqlx::query_scalar!(
            r#"WITH free AS MATERIALIZED (SELECT slot FROM generate_series(1, $2::int) slot WHERE slot <> ALL ($4::int[]))
               SELECT slot AS "slot!" FROM free WHERE pg_try_advisory_lock(hashtext($1), slot) LIMIT $3"#,
            self.kind,
            self.across,
            i64::try_from(want).unwrap_or(i64::MAX),
            &self.held,
        )
        .fetch_all(&mut conn)
        .await?;
        self.held.extend(&taken);
        // A connection that failed is not put back: its slots are free.
        self.conn = Some(conn);
        Ok(taken.into_iter().map(|number| Slot { number, connection: self.connection }).collect())
    }

    /// Frees slots.
    pub(crate) async fn free(&mut self, slots: &[Slot]) {
        let slots = slots.iter().filter(|slot| slot.connection == self.connection).map(|slot| slot.number);
        let slots: Vec<i32> = slots.collect();
        if slots.is_empty() {
            return;
        }
        self.held.retain(|slot| !slots.contains(slot));
        let Some(mut conn) = self.conn.take() else { return };
        let freed = sqlx::query!(
            "SELECT count(pg_advisory_unlock(hashtext($1), slot)) FROM unnest($2::int[]) slot",
            self.kind,
            &slots,
        );
        // One that does not answer is closed, which frees them as well.
        let freed = bounded(FREE_TIMEOUT, async { Ok(freed.fetch_one(&mut conn).await?) }).await;
        if freed.is_ok() {
            self.conn = Some(conn);
        }
    }
}
