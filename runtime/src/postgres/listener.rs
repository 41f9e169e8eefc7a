//! A connection that hears what others notify of. What it does crosses the boundary, as statements do.
#![expect(clippy::disallowed_types, reason = "it is the adapter")]
use super::Pool;
use crate::base::boundary::{Operation, crossing};
use sqlx::postgres::{PgListener, PgNotification};

/// See the module.
pub(crate) struct Listener {
    inner: PgListener,
    handler: &'static str,
}

impl Listener {
    /// On a connection of the pool, which it keeps, in the name of that handler.
    pub(crate) async fn of(pool: &Pool, handler: &'static str) -> Result<Self, sqlx::Error> {
        Ok(Self { inner: PgListener::connect_with(pool.inner()).await?, handler })
    }

    /// Hears from here on what is said in these channels.
    pub(crate) async fn listen_to(&mut self, channels: impl IntoIterator<Item = &str>) -> Result<(), sqlx::Error> {
        crossing(self.handler, Operation::Notification("listen"), self.inner.listen_all(channels)).await
    }

    /// The next that is said; none where the connection was lost meanwhile, and there is another: whatever was said in
    /// between, nobody heard.
    pub(crate) async fn hear(&mut self) -> Result<Option<PgNotification>, sqlx::Error> {
        crossing(self.handler, Operation::Notification("hear"), self.inner.try_recv()).await
    }
}
