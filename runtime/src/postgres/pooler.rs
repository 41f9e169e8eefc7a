//! Refusing a pooler that gives each transaction another session.
use super::{Connector, Purpose, patiently};
use crate::Conn;
use anyhow::{Context, bail};
use sqlx::{Executor, Row};
use std::time::Duration;

/// Time for which the look may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Looks: one may find the same session by chance.
const LOOKS: usize = 3;

/// Refuses PgBouncer's modes `transaction` and `statement`, where settings, prepared statements, LISTEN and advisory
/// locks of a session are another's with its next transaction. There, whoever begins a transaction takes the session
/// that was used last; so while one connection is in a transaction, another finds itself in a session that it was not
/// in before.
pub(crate) async fn refuse_shared_sessions(connector: &Connector) -> anyhow::Result<()> {
    if patiently(async || look(connector).await).await? {
        bail!(
            "DATABASE_URL leads to a pooler that gives each transaction another session; allowed: PostgreSQL itself, or \
             PgBouncer with pool_mode = session"
        );
    }
    Ok(())
}

/// Returns whether a session changes under its connection.
async fn look(connector: &Connector) -> anyhow::Result<bool> {
    let looking = async {
        let mut first = connector.connect("pooler", Purpose::Work).await?;
        let mut second = connector.connect("pooler", Purpose::Work).await?;
        let mut differs = false;
        for _ in 0..LOOKS {
            let before = session(&mut first).await?;
            second.execute("BEGIN").await?;
            session(&mut second).await?;
            differs |= session(&mut first).await? != before;
            second.execute("ROLLBACK").await?;
        }
        first.close().await.ok();
        second.close().await.ok();
        Ok::<_, sqlx::Error>(differs)
    };
    let differs = tokio::time::timeout(TIMEOUT, looking).await.context("the database takes long to answer")?;
    differs.context("the database's sessions can't be looked at")
}

async fn session(conn: &mut Conn) -> Result<i32, sqlx::Error> {
    conn.fetch_one("SELECT pg_backend_pid()").await?.try_get(0)
}
