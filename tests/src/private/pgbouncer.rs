//! PgBouncer before a test's database.
use super::Dir;
use crate::{Process, eventually, gateway::free_port};
use gavel_programs::{as_postgres, on_path};
use std::fs;
use tokio::net::TcpStream;

/// See the module. Ends when dropped.
pub struct PgBouncer {
    /// The database through it.
    pub url: String,
    _process: Process,
    _dir: Dir,
}

impl PgBouncer {
    /// In that mode, `session` or `transaction`, with no other setting than those without which it would not start.
    pub async fn start(database_url: &str, mode: &str) -> Self {
        let (dir, port) = (Dir::new("pgbouncer"), free_port().await);
        let (user, password, host, database) = parts(database_url);
        let (host, server_port) = host.split_once(':').unwrap_or((host, "5432"));
        let config = dir.0.join("pgbouncer.ini");
        let text = format!(
            "[databases]\n{database} = host={host} port={server_port} user={user} password={password}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = {mode}\ndefault_pool_size = 60\nmax_client_conn = 200\n"
        );
        fs::write(&config, text).expect("written");
        let mut command = as_postgres(&on_path("pgbouncer").expect("PgBouncer is installed"));
        command.arg(&config).current_dir("/");
        let process = Process::spawn(command);
        let answers = || async {
            assert!(!process.has_ended(), "{:?}", process.output());
            TcpStream::connect(("127.0.0.1", port)).await.is_ok()
        };
        eventually("PgBouncer listens", answers, |answers| *answers).await;
        Self { url: format!("postgres://{user}@127.0.0.1:{port}/{database}"), _process: process, _dir: dir }
    }
}

/// User, password, host and database of a URL.
fn parts(url: &str) -> (&str, &str, &str, &str) {
    let rest = url.split_once("://").expect("a scheme").1;
    let (account, rest) = rest.split_once('@').expect("a user");
    let (host, database) = rest.split_once('/').expect("a database");
    let (user, password) = account.split_once(':').unwrap_or((account, ""));
    (user, password, host, database)
}
