//! Whether the pools of a process fit into what the server allows.
use super::{
    Pool, patiently,
    pools::{BOOKKEEPING_POOL_SIZE, HEARTBEAT, PRESENCE, PROBE},
};
use crate::config::PoolSizes;
use anyhow::bail;

/// Which of the pools a process uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Uses {
    /// Routes.
    Service,
    /// Jobs, consumers, schedules, loops.
    Worker,
}

impl Uses {
    /// The pools by their settings' names, and what is not to be set.
    fn connections(self, sizes: &PoolSizes) -> Vec<(&'static str, u32)> {
        let reads = ("GAVEL_READ_POOL_SIZE", sizes.reads);
        match self {
            Self::Service => {
                vec![("GAVEL_POOL_SIZE", sizes.calls), reads, ("bookkeeping", BOOKKEEPING_POOL_SIZE + PROBE + PRESENCE)]
            }
            Self::Worker => vec![
                ("GAVEL_JOB_POOL_SIZE", sizes.jobs),
                ("GAVEL_RELAY_POOL_SIZE", sizes.relay),
                reads,
                ("bookkeeping", BOOKKEEPING_POOL_SIZE + PROBE + HEARTBEAT + PRESENCE),
            ],
        }
    }
}

/// Refuses pools that together are more than the server allows this user in this database; warns when others have taken
/// so many that not all are left.
pub(crate) async fn check_sizes(reads: &Pool, uses: Uses, sizes: &PoolSizes) -> anyhow::Result<()> {
    let server = patiently(async || look(reads).await).await?;
    let pools = uses.connections(sizes);
    let needed = i64::from(pools.iter().map(|(_, size)| size).sum::<u32>());
    let sum = pools.iter().map(|(name, size)| format!("{name} {size}")).collect::<Vec<_>>().join(" + ");
    if needed > i64::from(server.allowed) {
        bail!(
            "the pools need {needed} connections ({sum}), and the server allows {}: make them smaller",
            server.allowed
        );
    }
    if needed + i64::from(server.taken) > i64::from(server.allowed) {
        let Server { allowed, taken } = server;
        tracing::warn!(needed, allowed, taken, "others have taken so many connections that the pools may not fill");
    }
    Ok(())
}

/// Connections of a server to its clients.
struct Server {
    allowed: i32,
    /// By others.
    taken: i32,
}

async fn look(reads: &Pool) -> anyhow::Result<Server> {
    let server = sqlx::query_as!(
        Server,
        r#"SELECT least(
             current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
               - coalesce(current_setting('reserved_connections', true)::int, 0),
             (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database()),
             (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user)) AS "allowed!",
           (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid())::int
             AS "taken!""#,
    );
    Ok(server.fetch_one(reads).await?)
}
