//! Servers of one test alone: what it does to them would be felt by every other test.
mod pgbouncer;
mod postgres;
mod prometheus;
mod redis;

pub use pgbouncer::PgBouncer;
pub use postgres::{Postgres, url as database_url};
pub use prometheus::Prometheus;
pub use redis::Redis;

use gavel_programs::{POSTGRES_USER, is_root};
use std::{
    path::{Path, PathBuf},
    process::Command,
};
use uuid::Uuid;

/// A directory of its own, deleted when dropped.
struct Dir(PathBuf);

impl Dir {
    /// Its owner is whoever PostgreSQL runs as.
    fn new(what: &str) -> Self {
        // Not the user's own: PostgreSQL's user must be let in.
        let path = Path::new("/var/tmp").join(format!("gavel-{what}-{}", Uuid::new_v4().simple()));
        std::fs::create_dir_all(&path).expect("a directory");
        if is_root() {
            let given = Command::new("chown").arg(POSTGRES_USER).arg(&path).status();
            assert!(given.expect("chown runs").success(), "{} can't be given to {POSTGRES_USER}", path.display());
        }
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs to its end, and must succeed.
fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?} can't be run: {error}"));
    let said = || String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}", said());
}
