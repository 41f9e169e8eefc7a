//! Where a checkout's private servers live. Every checkout has directories and ports of its own, so several run side by
//! side.
use crate::install::is_root;
use anyhow::{Context, bail};
use std::{
    collections::hash_map::DefaultHasher,
    fs,
    hash::{Hash, Hasher},
    net::TcpListener,
    path::{Path, PathBuf},
};

/// Ports used by one set: eight in a row.
const PORTS: u16 = 8;
/// Blocks of ports are looked for in this many places, from 20000 up.
const BLOCKS: u64 = 1_500;

/// One set of private servers.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// Ends names that are global to the machine.
    pub(crate) id: String,
    /// Everything that may be deleted: data, logs, pid files.
    pub(crate) dir: PathBuf,
    first_port: u16,
}

impl Layout {
    /// The set of that name: the ports it had before if their file is still there, otherwise free ones.
    pub(crate) fn of(name: &'static str) -> anyhow::Result<Self> {
        let root = crate::root();
        let mut hasher = DefaultHasher::new();
        (root.as_path(), name).hash(&mut hasher);
        let hash = hasher.finish();
        let id = format!("{name}-{:08x}", hash & 0xffff_ffff);
        // PostgreSQL refuses to run as root and another user may not enter root's checkout.
        let dir = if is_root() {
            PathBuf::from(format!("/var/tmp/gavel-{id}"))
        } else {
            root.join(".gavel").join(name)
        };
        fs::create_dir_all(dir.join("log")).with_context(|| format!("can't create {}", dir.display()))?;
        let first_port = ports(&dir, hash)?;
        Ok(Self { id, dir, first_port })
    }

    fn port(&self, offset: u16) -> u16 {
        self.first_port + offset
    }
    pub(crate) fn postgres_port(&self) -> u16 {
        self.port(0)
    }
    pub(crate) fn amqp_port(&self) -> u16 {
        self.port(1)
    }
    pub(crate) fn rabbitmq_api_port(&self) -> u16 {
        self.port(2)
    }
    pub(crate) fn epmd_port(&self) -> u16 {
        self.port(3)
    }
    pub(crate) fn erlang_port(&self) -> u16 {
        self.port(4)
    }
    pub(crate) fn redis_port(&self) -> u16 {
        self.port(5)
    }
    pub(crate) fn service_port(&self) -> u16 {
        self.port(6)
    }
    pub(crate) fn worker_port(&self) -> u16 {
        self.port(7)
    }

    pub(crate) fn log(&self, of: &str) -> PathBuf {
        self.dir.join("log").join(format!("{of}.log"))
    }

    pub(crate) fn pid_file(&self, of: &str) -> PathBuf {
        self.dir.join(format!("{of}.pid"))
    }
}

fn ports(dir: &Path, hash: u64) -> anyhow::Result<u16> {
    let file = dir.join("ports");
    if let Some(port) = fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok()) {
        return Ok(port);
    }
    for attempt in 0..BLOCKS {
        let block = u16::try_from((hash.wrapping_add(attempt)) % BLOCKS).unwrap_or_default();
        let first = 20_000 + block * PORTS;
        let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if (first..first + PORTS).all(free) {
            fs::write(&file, first.to_string())?;
            return Ok(first);
        }
    }
    bail!("no {PORTS} free ports in a row between 20000 and 32000")
}
