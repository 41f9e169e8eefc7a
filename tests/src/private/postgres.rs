//! A PostgreSQL that can die, and a standby that takes its place.
use super::{Dir, run};
use crate::{Process, eventually, gateway::free_port, process::binary};
use gavel_programs::{POSTGRES_USER, as_postgres, is_root, postgresql_bin};
use sqlx::{Connection, PgConnection, PgPool, postgres::PgPoolOptions};
use std::{fs, path::PathBuf, process::Command};

/// The database's name.
const DATABASE: &str = "gavel";

/// See the module. Ends when dropped.
pub struct Postgres {
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    process: Process,
    dir: Dir,
}

fn bin() -> PathBuf {
    postgresql_bin().expect("PostgreSQL is installed")
}

impl Postgres {
    /// One with nothing in it, and `gavel` as its administrator, who alone needs no password.
    pub async fn empty() -> Self {
        let dir = Dir::new("postgres");
        let mut initdb = as_postgres(&bin().join("initdb"));
        initdb.arg("-D").arg(dir.0.join("data")).args(["-U", "gavel", "--auth=trust", "-E", "UTF8", "--no-sync"]);
        run(initdb.current_dir("/"));
        let who = "local all all trust\nhost all gavel all trust\nhost replication gavel all trust\nhost all all all scram-sha-256\n";
        fs::write(dir.0.join("data/pg_hba.conf"), who).expect("written");
        Self::start(dir).await
    }

    /// One that takes writes, with Gavel's schema. A commit waits for a standby that follows it, where there is one.
    pub async fn primary() -> Self {
        Self::empty().await.migrated()
    }

    /// The same, that archives its log of writes with that command.
    pub async fn archiving(command: &str) -> Self {
        let mut postgres = Self::empty().await;
        let db = postgres.pool_of("postgres").await;
        for setting in ["archive_mode = on".to_owned(), format!("archive_command = '{command}'")] {
            sqlx::query(&format!("ALTER SYSTEM SET {setting}")).execute(&db).await.expect("set");
        }
        postgres.restart().await;
        postgres.migrated()
    }

    fn migrated(self) -> Self {
        let mut migrate = Command::new(binary("bidctl"));
        migrate.args(["migrate", "--create-database"]).env_clear().env("DATABASE_URL", url(&[&self]));
        run(&mut migrate);
        self
    }

    /// Another that follows this one, and whose confirmation every commit waits for from now on.
    pub async fn standby(&self) -> Self {
        let dir = Dir::new("standby");
        let from = format!("host=127.0.0.1 port={} user=gavel", self.port);
        let mut copy = as_postgres(&bin().join("pg_basebackup"));
        copy.args(["-R", "-c", "fast", "-d", &from]).arg("-D").arg(dir.0.join("data"));
        run(copy.current_dir("/"));
        let standby = Self::start(dir).await;
        let db = self.pool().await;
        for statement in ["ALTER SYSTEM SET synchronous_standby_names = '*'", "SELECT pg_reload_conf()"] {
            sqlx::query(statement).execute(&db).await.expect("set");
        }
        let follows = || async {
            let state = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
            sqlx::query_scalar::<_, i64>(state).fetch_one(&db).await.expect("looked")
        };
        eventually("the standby follows", follows, |standbys| *standbys == 1).await;
        standby
    }

    async fn start(dir: Dir) -> Self {
        let port = free_port().await;
        let postgres = Self { port, process: Self::spawn(&dir, port), dir };
        postgres.answers().await;
        postgres
    }

    /// Ends it in order, and starts it again.
    async fn restart(&mut self) {
        let mut stop = as_postgres(&bin().join("pg_ctl"));
        run(stop.arg("-D").arg(self.dir.0.join("data")).args(["-m", "fast", "-w", "stop"]).current_dir("/"));
        self.process = Self::spawn(&self.dir, self.port);
        self.answers().await;
    }

    fn spawn(dir: &Dir, port: u16) -> Process {
        let mut command = as_postgres(&bin().join("postgres"));
        command.arg("-D").arg(dir.0.join("data")).args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"]);
        command.args(["-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "max_connections=200"]);
        Process::spawn(command)
    }

    async fn answers(&self) {
        let answers = || async {
            assert!(!self.process.has_ended(), "{:?}", self.process.output());
            let address = format!("postgres://gavel@127.0.0.1:{}/postgres", self.port);
            PgConnection::connect(&address).await.is_ok()
        };
        eventually("PostgreSQL answers", answers, |answers| *answers).await;
    }

    /// The test's own connections to it.
    pub async fn pool(&self) -> PgPool {
        self.pool_of(DATABASE).await
    }

    async fn pool_of(&self, database: &str) -> PgPool {
        let url = format!("postgres://gavel@127.0.0.1:{}/{database}", self.port);
        PgPoolOptions::new().max_connections(2).connect(&url).await.expect("the database answers")
    }

    /// Ends it as a power failure does: nobody is told.
    pub fn kill(&self) {
        // All of its processes: each connection has one.
        let pid = fs::read_to_string(self.dir.0.join("data/postmaster.pid")).expect("its pid");
        let pid = pid.lines().next().expect("a pid").to_owned();
        let _ = Command::new("pkill").args(["-KILL", "-P", &pid]).status();
        let _ = Command::new("kill").args(["-KILL", &pid]).status();
    }

    /// Gives it a certificate of `localhost`, signed by itself, in place of the one that it had; connections of before
    /// go on. Returns the certificate's text, for those who are to trust it.
    pub async fn show_new_certificate(&self) -> String {
        let made = Dir::new("certificate");
        let (certificate, key) = gavel_gateway::certificate(&made.0).expect("a certificate");
        let data = self.dir.0.join("data");
        for (from, to) in [(&certificate, "server.crt"), (&key, "server.key")] {
            let to = data.join(to);
            fs::write(&to, fs::read(from).expect("made")).expect("written");
            if is_root() {
                run(Command::new("chown").arg(POSTGRES_USER).arg(&to));
            }
            run(Command::new("chmod").arg("600").arg(&to));
        }
        let db = self.pool().await;
        for statement in ["ALTER SYSTEM SET ssl = on", "SELECT pg_reload_conf()"] {
            sqlx::query(statement).execute(&db).await.expect("set");
        }
        fs::read_to_string(certificate).expect("made")
    }

    /// Makes a standby take writes.
    pub async fn promote(&self) {
        let promoted: bool =
            sqlx::query_scalar("SELECT pg_promote()").fetch_one(&self.pool().await).await.expect("asked");
        assert!(promoted, "the standby is not promoted");
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if !self.process.has_ended() {
            self.kill();
        }
    }
}

/// The URL of these hosts, in that order.
pub fn url(hosts: &[&Postgres]) -> String {
    let hosts: Vec<_> = hosts.iter().map(|host| format!("127.0.0.1:{}", host.port)).collect();
    format!("postgres://gavel@{}/{DATABASE}", hosts.join(","))
}
