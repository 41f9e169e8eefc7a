//! A private Redis. It holds a read model that can be built again, so nothing is written to disk.
use super::{Child, layout::Layout};
use crate::progress::wait_until;
use std::{fs, net::TcpStream, process::Command, time::Duration};

pub(crate) fn start(layout: &Layout) -> anyhow::Result<Child> {
    let home = layout.dir.join("redis");
    fs::create_dir_all(&home)?;
    let port = layout.redis_port();
    let mut command = Command::new("redis-server");
    command
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"])
        .arg("--dir")
        .arg(&home);
    let mut child = Child::start(layout, "redis", "TERM", command.current_dir(&home))?;
    let ready = || TcpStream::connect(("127.0.0.1", port)).is_ok();
    wait_until("Redis", Duration::from_secs(30), || child.check(), ready)?;
    Ok(child)
}
