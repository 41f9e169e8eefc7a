//! A private Redis. It holds a read model that can be built again, so nothing is written to disk.
use super::{Child, layout::Layout, secrets::write_private};
use crate::progress::wait_until;
use gavel_accounts::{Passwords, redis_users};
use std::{fs, net::TcpStream, process::Command, time::Duration};

pub(crate) fn start(layout: &Layout, passwords: &Passwords) -> anyhow::Result<Child> {
    let home = layout.dir.join("redis");
    fs::create_dir_all(&home)?;
    let port = layout.redis_port();
    let config = home.join("redis.conf");
    write_private(&config, &configuration(port, passwords))?;
    let mut command = Command::new("redis-server");
    command.arg(&config).arg("--dir").arg(&home);
    let mut child = Child::start(layout, "redis", "TERM", command.current_dir(&home))?;
    let ready = || TcpStream::connect(("127.0.0.1", port)).is_ok();
    wait_until("Redis", Duration::from_secs(30), || child.check(), ready)?;
    Ok(child)
}

/// The prefix of keys is the programs' own where nothing else is said.
fn configuration(port: u16, passwords: &Passwords) -> String {
    let settings = format!("bind 127.0.0.1\nport {port}\nsave \"\"\nappendonly no\n");
    settings + &redis_users("gavel", passwords)
}
