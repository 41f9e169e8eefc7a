//! A connection to the database. Every statement of it crosses the boundary, in the name of the handler that runs it.
#![expect(clippy::disallowed_types, reason = "it is the adapter")]
use crate::base::boundary::{self, Operation, planted};
use futures_util::{StreamExt, TryStreamExt, future::BoxFuture, stream, stream::BoxStream};
use sqlx::{
    Connection, Describe, Either, Execute, Executor, PgConnection, Postgres, TransactionManager,
    pool::PoolConnection,
    postgres::{PgQueryResult, PgRow, PgStatement, PgTransactionManager, PgTypeInfo},
};
use std::{
    fmt,
    ops::{Deref, DerefMut},
};

/// One connection: a pool's, or one of its own.
pub struct Conn {
    inner: Inner,
    handler: &'static str,
}

enum Inner {
    Pooled(PoolConnection<Postgres>),
    Own(PgConnection),
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn").field("handler", &self.handler).finish_non_exhaustive()
    }
}

/// One of a pool that is not the runtime's: what runs on it is in nobody's name.
impl From<PoolConnection<Postgres>> for Conn {
    fn from(conn: PoolConnection<Postgres>) -> Self {
        Self::pooled(conn, "nobody")
    }
}

impl Conn {
    /// In the name of that handler.
    pub(super) fn pooled(conn: PoolConnection<Postgres>, handler: &'static str) -> Self {
        Self { inner: Inner::Pooled(conn), handler }
    }

    /// The same, of one that no pool has.
    pub(super) fn own(conn: PgConnection, handler: &'static str) -> Self {
        Self { inner: Inner::Own(conn), handler }
    }

    /// From here on in the name of another handler.
    pub(super) fn on_behalf_of(&mut self, handler: &'static str) {
        self.handler = handler;
    }

    /// sqlx's own, for what takes nothing else: what it does there nobody sees.
    pub(crate) fn raw(&mut self) -> &mut PgConnection {
        match &mut self.inner {
            Inner::Pooled(conn) => conn,
            Inner::Own(conn) => conn,
        }
    }

    /// Runs a statement that is called by a name of its own: one that begins or ends a transaction.
    pub(super) async fn run(&mut self, verb: &'static str, sql: &str) -> Result<PgQueryResult, sqlx::Error> {
        let handler = self.handler;
        boundary::crossing(handler, Operation::Transaction(verb), self.raw().execute(planted::text(sql))).await
    }

    /// As [`Conn::run`], with its answer.
    pub(super) async fn ask(&mut self, verb: &'static str, sql: &str) -> Result<PgRow, sqlx::Error> {
        let handler = self.handler;
        boundary::crossing(handler, Operation::Transaction(verb), self.raw().fetch_one(planted::text(sql))).await
    }

    /// Lets go of what was done so far, where that is planted before this statement.
    async fn slip(&mut self, text: &str) -> Result<(), sqlx::Error> {
        if planted::commits_before(text) {
            self.raw().execute("COMMIT; BEGIN").await?;
        }
        Ok(())
    }

    /// Begins a transaction that is rolled back where it is dropped, before whatever comes next on this connection.
    pub(crate) async fn begin(&mut self) -> Result<Scope<'_>, sqlx::Error> {
        // Before it is begun: who is cut off in the middle leaves none open.
        let mut scope = Scope { conn: self, is_open: true };
        let handler = scope.handler;
        let begun = PgTransactionManager::begin(scope.raw(), None);
        boundary::crossing(handler, Operation::Transaction("begin"), begun).await?;
        Ok(scope)
    }

    /// It does not go back to a pool.
    pub(super) fn close_on_drop(&mut self) {
        if let Inner::Pooled(conn) = &mut self.inner {
            conn.close_on_drop();
        }
    }

    /// Ends the session, as the server is told.
    pub async fn close(self) -> Result<(), sqlx::Error> {
        match self.inner {
            Inner::Pooled(conn) => conn.close().await,
            Inner::Own(conn) => conn.close().await,
        }
    }
}

/// A transaction on a connection that is there for longer.
#[derive(Debug)]
pub(crate) struct Scope<'c> {
    conn: &'c mut Conn,
    is_open: bool,
}

impl Scope<'_> {
    pub(crate) async fn commit(mut self) -> Result<(), sqlx::Error> {
        let handler = self.conn.handler;
        let committing = PgTransactionManager::commit(self.conn.raw());
        boundary::crossing(handler, Operation::Transaction("commit"), committing).await?;
        self.is_open = false;
        Ok(())
    }

    pub(crate) async fn rollback(mut self) -> Result<(), sqlx::Error> {
        let handler = self.conn.handler;
        let undoing = PgTransactionManager::rollback(self.conn.raw());
        boundary::crossing(handler, Operation::Transaction("rollback"), undoing).await?;
        self.is_open = false;
        Ok(())
    }
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        if self.is_open {
            PgTransactionManager::start_rollback(self.conn.raw());
        }
    }
}

impl Deref for Scope<'_> {
    type Target = Conn;

    fn deref(&self) -> &Conn {
        self.conn
    }
}

impl DerefMut for Scope<'_> {
    fn deref_mut(&mut self) -> &mut Conn {
        self.conn
    }
}

/// What a statement gives, row by row, once all of it is there.
pub(super) fn read_whole<'e>(
    reading: impl Future<Output = Result<Vec<Either<PgQueryResult, PgRow>>, sqlx::Error>> + Send + 'e,
) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>> {
    let rows = stream::once(reading).flat_map(|rows| match rows {
        Ok(rows) => stream::iter(rows.into_iter().map(Ok)).left_stream(),
        Err(error) => stream::iter([Err(error)]).right_stream(),
    });
    rows.boxed()
}

impl<'c> Executor<'c> for &'c mut Conn {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        if !boundary::is_armed() {
            return self.raw().fetch_many(query);
        }
        let (handler, text) = (self.handler, query.sql());
        let query = planted::query(query);
        read_whole(async move {
            self.slip(text).await?;
            let mut autonomous = planted::session_for(text).await?;
            let reading = autonomous.as_mut().unwrap_or_else(|| self.raw()).fetch_many(query).try_collect();
            boundary::crossing(handler, Operation::Statement(text), reading).await
        })
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        if !boundary::is_armed() {
            return self.raw().fetch_optional(query);
        }
        let (handler, text) = (self.handler, query.sql());
        let query = planted::query(query);
        Box::pin(async move {
            self.slip(text).await?;
            boundary::crossing(handler, Operation::Statement(text), self.raw().fetch_optional(query)).await
        })
    }

    fn prepare_with<'e, 'q: 'e>(
        self,
        sql: &'q str,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement<'q>, sqlx::Error>>
    where
        'c: 'e,
    {
        self.raw().prepare_with(sql, parameters)
    }

    fn describe<'e, 'q: 'e>(self, sql: &'q str) -> BoxFuture<'e, Result<Describe<Postgres>, sqlx::Error>>
    where
        'c: 'e,
    {
        self.raw().describe(sql)
    }
}
