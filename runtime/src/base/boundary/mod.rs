//! Where a process touches the world, and what a test may do to it exactly there.
//!
//! Each kind of I/O has one adapter, and the adapter calls `crossing` around what it does. A site is called by its
//! handler and by what is done: `greet.commit`, or `greet.3f2a91bc0d44` for a statement, by the beginning of
//! the SHA-256 of its text, which is its name in `.sqlx`. So a site keeps its name when lines move.
//!
//! `GAVEL_BOUNDARY=/path/of/a/socket` makes a process ask there, when it starts, at which sites it is to stop
//! ([`Plan`]). It then says there which sites it came by, and at those that are meant it says so and waits: whoever
//! listens kills the process, restarts a server or cuts a connection, and then lets it go on, or never. Unset, a site
//! costs one comparison. Production never sets it: start-up logs a warning when it is there.
mod control;
mod plan;
pub mod planted;

pub use control::arm;
pub use plan::{Hello, Order, Plan, Position, Reached, Server, Stop};

use sha2::{Digest, Sha256};
use std::fmt::{self, Write};

/// The variable.
pub const VARIABLE: &str = "GAVEL_BOUNDARY";
/// Bytes of a statement's hash that name it.
const NAME_BYTES: usize = 6;

/// What is done at a site.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Operation<'a> {
    /// A statement, by its text.
    Statement(&'a str),
    /// What begins or ends a transaction.
    Transaction(&'static str),
    /// What hears of notifications.
    Notification(&'static str),
    /// A call of the broker.
    Broker(&'static str),
    /// A command of the cache.
    Cache(&'static str),
    /// What a client called for.
    Call(&'static str),
}

impl Operation<'_> {
    fn server(self) -> Server {
        match self {
            Self::Statement(_) | Self::Transaction(_) | Self::Notification(_) => Server::Database,
            Self::Broker(_) => Server::Broker,
            Self::Cache(_) => Server::Cache,
            Self::Call(_) => Server::Client,
        }
    }
}

impl fmt::Display for Operation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Statement(text) => f.write_str(&statement_name(text)),
            Self::Transaction(verb)
            | Self::Notification(verb)
            | Self::Broker(verb)
            | Self::Cache(verb)
            | Self::Call(verb) => f.write_str(verb),
        }
    }
}

/// The beginning of a statement's name in `.sqlx`.
pub fn statement_name(text: &str) -> String {
    Sha256::digest(text).iter().take(NAME_BYTES).fold(String::new(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    })
}

/// Whether anybody listens, or anything is said otherwise.
pub(crate) fn is_armed() -> bool {
    control::is_armed() || planted::is_any()
}

/// Does it, and stops before it or after it where that is planned. Dropped meanwhile, it has been cut off.
pub(crate) async fn crossing<T>(handler: &'static str, operation: Operation<'_>, act: impl Future<Output = T>) -> T {
    if !is_armed() {
        return act.await;
    }
    let site = format!("{handler}.{operation}");
    let hit = control::hit(&site);
    let server = operation.server();
    control::stop(server, &site, Position::Before, hit).await;
    let done = act.await;
    control::stop(server, &site, Position::After, hit).await;
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_called_as_its_file_in_sqlx_begins() {
        let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.sqlx")).unwrap();
        for file in files {
            let path = file.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let prepared: serde_json::Value = serde_json::from_str(&text).unwrap();
            let name = statement_name(prepared["query"].as_str().unwrap());
            let stem = path.file_stem().unwrap().to_str().unwrap();
            assert!(stem.starts_with(&format!("query-{name}")), "{stem} is {name}");
        }
    }
}
