//! A pool that closes what is of no use any more.
#![expect(clippy::disallowed_types, reason = "it is the adapter")]
use super::{
    Conn, Connector,
    conn::read_whole,
    connector::{State, while_connecting},
    session::Purpose,
};
use crate::base::{error::spends_session, held::Held};
use futures_util::{TryStreamExt, future::BoxFuture, stream::BoxStream};
use sqlx::{
    Describe, Either, Execute, Executor, PgPool, Postgres,
    postgres::{PgPoolOptions, PgQueryResult, PgRow, PgStatement, PgTypeInfo},
};
use std::{fmt, io, time::Duration};

/// Time for which anyone waits for a free connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection is taken as it is when it has been idle for less than this: asking would be one more round trip for
/// each transaction, and its first statement tells as well.
const UNTESTED: Duration = Duration::from_secs(1);

/// Connections to the database. Cheap to clone; statements run on it as on sqlx's own pool, and their rows are read
/// whole.
#[derive(Clone)]
pub struct Pool {
    inner: PgPool,
    connector: Connector,
    purpose: Purpose,
    waiting: Held,
    /// In whose name its connections are.
    handler: &'static str,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("size", &self.inner.size())
            .field("idle", &self.inner.num_idle())
            .finish_non_exhaustive()
    }
}

impl Pool {
    /// Connects when first used.
    pub(super) fn lazy(name: &'static str, connector: &Connector, purpose: Purpose, size: u32) -> Self {
        let (begins, tests) = (connector.clone(), connector.clone());
        let options = PgPoolOptions::new()
            .max_connections(size)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .after_connect(move |conn, _| {
                let connector = begins.clone();
                Box::pin(async move { connector.begin(conn, purpose).await })
            })
            .before_acquire(move |conn, meta| {
                let is_outdated = tests.is_outdated(meta.age);
                Box::pin(async move {
                    if is_outdated {
                        return Ok(false);
                    }
                    if meta.idle_for < UNTESTED { Ok(true) } else { purpose.fits(conn).await }
                })
            });
        let inner = options.connect_lazy_with(connector.options().clone());
        Self { inner, connector: connector.clone(), purpose, waiting: Held::default(), handler: name }
    }

    /// The same, in the name of that handler.
    pub(crate) fn on_behalf_of(&self, handler: &'static str) -> Self {
        Self { handler, ..self.clone() }
    }

    /// A connection of the pool.
    pub(crate) async fn acquire(&self) -> Result<Conn, sqlx::Error> {
        let _waiting = self.waiting.take();
        match self.inner.acquire().await {
            // Nobody has taken them all: there are none to be had.
            Err(sqlx::Error::PoolTimedOut) => Err(match self.connector.state() {
                State::Down(why) => sqlx::Error::Io(io::Error::new(io::ErrorKind::NotConnected, why)),
                State::Up | State::Busy(_) => sqlx::Error::PoolTimedOut,
            }),
            acquired => acquired.map(|conn| Conn::pooled(conn, self.handler)).map_err(while_connecting),
        }
    }

    /// Returns whether a connection is still what it was taken for.
    pub(crate) async fn fits(&self, conn: &mut Conn) -> bool {
        self.purpose.fits(conn.raw()).await.unwrap_or(false)
    }

    /// sqlx's own, for what takes nothing else.
    pub(crate) fn inner(&self) -> &PgPool {
        &self.inner
    }

    /// Connections from now on go to the connector's host.
    pub(super) fn follow(&self) {
        self.inner.set_connect_options(self.connector.options().clone());
    }

    /// The most connections it has.
    pub(crate) fn size(&self) -> usize {
        self.inner.options().get_max_connections() as usize
    }

    /// Connections that it has.
    pub(crate) fn open(&self) -> usize {
        self.inner.size() as usize
    }

    /// Connections of it that somebody works with.
    pub(crate) fn in_use(&self) -> usize {
        self.open().saturating_sub(self.inner.num_idle())
    }

    /// How many wait for a connection.
    pub(crate) fn waiting(&self) -> usize {
        usize::try_from(self.waiting.count()).unwrap_or(0)
    }

    pub(crate) async fn close(&self) {
        self.inner.close().await;
    }
}

/// Closes the connection where the error says that it is of no use any more.
fn kept<T>(mut conn: Conn, result: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
    if result.as_ref().is_err_and(spends_session) {
        conn.close_on_drop();
    }
    result
}

impl<'p> Executor<'p> for &'_ Pool {
    type Database = Postgres;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, sqlx::Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let pool = self.clone();
        let read = async move {
            let mut conn = pool.acquire().await?;
            let rows = conn.fetch_many(query).try_collect::<Vec<_>>().await;
            kept(conn, rows)
        };
        read_whole(read)
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, sqlx::Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let pool = self.clone();
        Box::pin(async move {
            let mut conn = pool.acquire().await?;
            let row = conn.fetch_optional(query).await;
            kept(conn, row)
        })
    }

    fn prepare_with<'e, 'q: 'e>(
        self,
        sql: &'q str,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement<'q>, sqlx::Error>>
    where
        'p: 'e,
    {
        let pool = self.clone();
        Box::pin(async move { pool.acquire().await?.prepare_with(sql, parameters).await })
    }

    fn describe<'e, 'q: 'e>(self, sql: &'q str) -> BoxFuture<'e, Result<Describe<Postgres>, sqlx::Error>>
    where
        'p: 'e,
    {
        let pool = self.clone();
        Box::pin(async move { pool.acquire().await?.describe(sql).await })
    }
}
