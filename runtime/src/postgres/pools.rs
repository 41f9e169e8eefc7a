//! Connection pools, one for each kind of work: what one of them is short of, the others still have. Together they must
//! fit into what the server allows, which is checked when a process starts.
//!
//! A session is what it was when it began, whatever has become of its server since. So one that an error leaves in
//! doubt is closed, one that was idle is asked before it is used, and none is begun that could not write (`session`,
//! `connector`).
use super::{Connector, Pool, Purpose, Standby};
use crate::{base::spec::PoolKind, changes::Evolution, config::Backends};
use std::sync::Arc;

/// Is told what a transaction has committed, once it has.
pub(crate) trait CommitListener: Send + Sync {
    /// Jobs of these kinds, and perhaps events.
    fn committed(&self, kinds: &[&'static str], has_events: bool);
}

/// The pools of one process. They connect when first used.
#[derive(Clone)]
pub(crate) struct Pools {
    calls: Pool,
    jobs: Pool,
    relay: Pool,
    pub(crate) reads: Pool,
    /// For reads that may be some moments old, where there is one.
    pub(crate) standby: Option<Standby>,
    /// Short bookkeeping beside a transaction that is open: never waits for one.
    pub(crate) bookkeeping: Pool,
    /// For connections of one's own.
    pub(crate) connector: Connector,
    /// The changes of the schema, and how far they have come.
    pub(crate) evolution: Evolution,
    /// Told of what was committed.
    pub(crate) listener: Option<Arc<dyn CommitListener>>,
}

/// Connections for bookkeeping: one of them listens.
pub(crate) const BOOKKEEPING_POOL_SIZE: u32 = 4;
/// Connections of one's own: the one that looks whether the database is well,
pub(crate) const PROBE: u32 = 1;
/// the heartbeat's,
pub(crate) const HEARTBEAT: u32 = 1;
/// and the one that says which forms of the schema the process lives with.
pub(crate) const PRESENCE: u32 = 1;

impl Pools {
    /// `session` is what sessions are called in PostgreSQL.
    pub(crate) fn lazy(backends: &Backends, session: &str, evolution: Evolution) -> anyhow::Result<Self> {
        let connector = Connector::new(&backends.database_url, session, backends.lease)?;
        let pool = |name, purpose, size| Pool::lazy(name, &connector, purpose, size);
        let bookkeeping = pool("bookkeeping", Purpose::Work, BOOKKEEPING_POOL_SIZE);
        let size = backends.pools.reads;
        let standby = backends.standby.as_ref().map(|settings| Standby::lazy(settings, size, session, backends.lease));
        Ok(Self {
            standby: standby.transpose()?,
            calls: pool("calls", Purpose::Calls, backends.pools.calls),
            jobs: pool("jobs", Purpose::Work, backends.pools.jobs),
            relay: pool("relay", Purpose::Work, backends.pools.relay),
            reads: pool("reads", Purpose::Reads, backends.pools.reads),
            evolution,
            listener: None,
            bookkeeping,
            connector,
        })
    }

    /// The same, whose transactions tell what they commit.
    #[must_use]
    pub(crate) fn told(self, listener: Arc<dyn CommitListener>) -> Self {
        Self { listener: Some(listener), ..self }
    }

    /// The pool of that kind.
    pub(crate) fn of(&self, pool_kind: PoolKind) -> &Pool {
        match pool_kind {
            PoolKind::Calls => &self.calls,
            PoolKind::Jobs => &self.jobs,
            PoolKind::Relay => &self.relay,
        }
    }

    fn all(&self) -> [&Pool; 5] {
        [&self.calls, &self.jobs, &self.relay, &self.reads, &self.bookkeeping]
    }

    /// Each with its name.
    pub(crate) fn named(&self) -> Vec<(&'static str, Pool)> {
        let names = ["calls", "jobs", "relay", "reads", "bookkeeping"];
        let own = names.into_iter().zip(self.all().map(Clone::clone));
        own.chain(self.standby.iter().map(|standby| ("standby", standby.pool().clone()))).collect()
    }

    /// Connections from now on go to another host.
    pub(crate) fn follow(&self) {
        self.all().into_iter().for_each(Pool::follow);
    }

    pub(crate) async fn close(&self) {
        for pool in self.all().into_iter().chain(self.standby.as_ref().map(Standby::pool)) {
            pool.close().await;
        }
    }
}
