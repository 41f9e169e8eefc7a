//! A private PostgreSQL.
use super::{Child, layout::Layout, secrets::write_private};
use crate::progress::{run_quietly, wait_until};
use anyhow::Context;
use gavel_accounts::Passwords;
use gavel_programs::{POSTGRES_USER, as_postgres, is_root, postgresql_bin};
use std::{path::Path, process::Command, time::Duration};

/// Starts it, making its data directory when there is none. `durable` is off for tests, which never crash PostgreSQL.
pub(crate) fn start(layout: &Layout, passwords: &Passwords, durable: bool) -> anyhow::Result<Child> {
    let bin = postgresql_bin().context("PostgreSQL is not installed")?;
    let data = layout.dir.join("postgres");
    if !data.join("PG_VERSION").exists() {
        make_data_directory(&bin, &data, passwords)?;
    }
    let port = layout.postgres_port().to_string();
    let mut command = as_postgres(&bin.join("postgres"));
    command.arg("-D").arg(&data).args(["-p", &port, "-c", "listen_addresses=127.0.0.1"]);
    // No socket in a shared directory: nothing global.
    command.args(["-c", "unix_socket_directories=", "-c", "max_connections=400"]);
    if !durable {
        command.args(["-c", "synchronous_commit=off", "-c", "full_page_writes=off"]);
        // Here a fault may change it; and whatever one has changed that was never healed is forgotten.
        std::fs::write(data.join("postgresql.auto.conf"), "fsync = off\n")?;
    }
    // SIGINT is PostgreSQL's fast shutdown.
    let mut child = Child::start(layout, "postgres", "INT", command.current_dir(&layout.dir))?;
    let ready = || {
        let mut probe = Command::new(bin.join("pg_isready"));
        run_quietly(probe.args(["-h", "127.0.0.1", "-p", &port])).is_ok()
    };
    wait_until("PostgreSQL", Duration::from_mins(1), || child.check(), ready)?;
    Ok(child)
}

fn make_data_directory(bin: &Path, data: &Path, passwords: &Passwords) -> anyhow::Result<()> {
    let password = data.with_extension("password");
    write_private(&password, &passwords.administrator)?;
    if is_root() {
        std::fs::create_dir_all(data)?;
        run_quietly(Command::new("chown").arg(POSTGRES_USER).args([data, password.as_path()]))?;
    }
    let mut initdb = as_postgres(&bin.join("initdb"));
    initdb.arg("-D").arg(data).arg("--pwfile").arg(&password);
    initdb.args(["-U", "gavel", "--auth=scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]);
    let made = run_quietly(initdb.current_dir("/")).map(drop);
    std::fs::remove_file(password)?;
    made
}
