//! Where a checkout's private servers live. Every checkout has directories and ports of its own, so several run side by
//! side.
use super::reap::{Set, reap};
use crate::install::is_root;
use anyhow::{Context, bail};
use std::{
    collections::hash_map::DefaultHasher,
    fs::{self, File},
    hash::{Hash, Hasher},
    net::TcpListener,
    ops::Deref,
    path::{Path, PathBuf},
};

/// Ports used by one set, in a row.
const PORTS: u16 = 13;
/// Blocks of ports are looked for in this many places, from 20000 up: from 32768 on Linux gives them to whoever connects
/// somewhere.
const BLOCKS: u64 = 980;

/// One set of private servers.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// Ends names that are global to the machine.
    pub(crate) id: String,
    /// Everything that may be deleted: data, logs, pid files.
    pub(crate) dir: PathBuf,
    first_port: u16,
}

/// A set that no other process of ours uses while this lives.
pub(crate) struct Claimed {
    layout: Layout,
    _lock: File,
}

impl Deref for Claimed {
    type Target = Layout;

    fn deref(&self) -> &Layout {
        &self.layout
    }
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
        let dir =
            if is_root() { PathBuf::from(format!("/var/tmp/gavel-{id}")) } else { root.join(".gavel").join(name) };
        fs::create_dir_all(dir.join("log")).with_context(|| format!("can't create {}", dir.display()))?;
        let known = fs::read_to_string(dir.join("ports")).ok().and_then(|text| text.trim().parse().ok());
        let first_port = known.map_or_else(|| free_ports(&dir, hash), Ok)?;
        Ok(Self { id, dir, first_port })
    }

    /// The set of that name for this process alone, ready to be started: what a killed run left behind is stopped, and
    /// ports that somebody else has taken meanwhile are given up for others.
    pub(crate) fn claim(name: &'static str) -> anyhow::Result<Claimed> {
        let mut layout = Self::of(name)?;
        let lock = File::create(layout.dir.join("lock"))?;
        if lock.try_lock().is_err() {
            bail!(
                "another `cargo xtask` of this checkout{} is using the servers in {}; Ctrl-C ends it there, and stops them",
                holder(&layout.dir).map(|pid| format!(", process {pid},")).unwrap_or_default(),
                layout.dir.display()
            );
        }
        fs::write(layout.dir.join("holder"), std::process::id().to_string())?;
        let set = Set { dir: &layout.dir, id: &layout.id, epmd_port: layout.epmd_port() };
        for stale in reap(&set)? {
            eprintln!("  ! stopped {stale}, left by a run that was killed");
        }
        if !are_free(layout.first_port) {
            layout.first_port = free_ports(&layout.dir, layout.first_port.into())?;
        }
        Ok(Claimed { layout, _lock: lock })
    }

    /// By its place, where a set is of something else.
    pub(crate) fn port(&self, offset: u16) -> u16 {
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
    pub(crate) fn service_ops_port(&self) -> u16 {
        self.port(7)
    }
    pub(crate) fn worker_ops_port(&self) -> u16 {
        self.port(8)
    }
    pub(crate) fn gateway_port(&self) -> u16 {
        self.port(9)
    }
    pub(crate) fn backfills_ops_port(&self) -> u16 {
        self.port(10)
    }
    pub(crate) fn prometheus_port(&self) -> u16 {
        self.port(11)
    }
    pub(crate) fn alertmanager_port(&self) -> u16 {
        self.port(12)
    }

    /// Deletes what the servers keep.
    pub(crate) fn wipe_data(&self) -> anyhow::Result<()> {
        for server in ["postgres", "rabbitmq", "redis"] {
            let data = self.dir.join(server);
            if data.exists() {
                fs::remove_dir_all(&data).with_context(|| format!("can't delete {}", data.display()))?;
            }
        }
        Ok(())
    }

    pub(crate) fn log(&self, of: &str) -> PathBuf {
        self.dir.join("log").join(format!("{of}.log"))
    }

    pub(crate) fn pid_file(&self, of: &str) -> PathBuf {
        self.dir.join(format!("{of}.pid"))
    }
}

fn are_free(first: u16) -> bool {
    (first..first + PORTS).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
}

/// Who has said last that it holds that set.
fn holder(dir: &Path) -> Option<u32> {
    fs::read_to_string(dir.join("holder")).ok()?.trim().parse().ok()
}

/// Finds free ports, from a place that differs between checkouts, and remembers them.
fn free_ports(dir: &Path, hash: u64) -> anyhow::Result<u16> {
    for attempt in 0..BLOCKS {
        let block = u16::try_from((hash.wrapping_add(attempt)) % BLOCKS).unwrap_or_default();
        let first = 20_000 + block * PORTS;
        if are_free(first) {
            fs::write(dir.join("ports"), first.to_string())?;
            return Ok(first);
        }
    }
    bail!("no {PORTS} free ports in a row between 20000 and 32740")
}
