//! A Debian of its own, booted by systemd-nspawn: a VPS as far as a program on it can tell, but for the kernel. What it
//! writes lies over a base that is made once.
use crate::{
    install::as_root,
    progress::{Step, run_quietly, wait_until},
};
use anyhow::{Context, bail};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

const SUITE: &str = "trixie";
/// What a hoster's image has.
const IMAGE: &str = "systemd,systemd-sysv,dbus,udev,iproute2,ca-certificates,procps";
/// What `ops/vps/install` would fetch: the machine has no way to the internet.
const PACKAGES: [&str; 12] = [
    "haproxy",
    "nftables",
    "certbot",
    "unattended-upgrades",
    "openssl",
    "curl",
    "logrotate",
    "socat",
    "postgresql",
    "rabbitmq-server",
    "redis-server",
    "pgbackrest",
];
const NAME: &str = "gavelvps";
/// This machine's, and the VPS's.
pub(super) const HERE: &str = "10.78.0.1";
pub(super) const THERE: &str = "10.78.0.2";
/// systemd-nspawn's exit code when the machine was rebooted.
const WANTS_TO_BOOT: i32 = 133;
const BOOTS_WITHIN: Duration = Duration::from_mins(2);

pub(super) struct Machine {
    nspawn: Child,
    base: PathBuf,
    dir: PathBuf,
}

impl Machine {
    /// Boots a new one.
    pub(super) fn boot() -> anyhow::Result<Self> {
        let all = PathBuf::from("/var/tmp/gavel-vps");
        let base = base(&all)?;
        let step = Step::begin("booting a VPS");
        let dir = all.join("machine");
        // One of a run that was killed.
        let _ = run_quietly(Command::new("pkill").args(["-KILL", "-f", &format!("systemd-nspawn.*{NAME}")]));
        let _ = run_quietly(Command::new("ip").args(["link", "delete", &format!("ve-{NAME}")]));
        run_quietly(Command::new("rm").args(["-rf", "--one-file-system"]).arg(&dir))?;
        for part in ["upper", "work", "root"] {
            fs::create_dir_all(dir.join(part))?;
        }
        let network = dir.join("upper/etc/systemd/network");
        fs::create_dir_all(&network)?;
        let text = format!("[Match]\nName=host0\n[Network]\nAddress={THERE}/24\n");
        fs::write(network.join("50-host0.network"), text)?;
        let wants = dir.join("upper/etc/systemd/system/multi-user.target.wants");
        fs::create_dir_all(&wants)?;
        std::os::unix::fs::symlink(
            "/usr/lib/systemd/system/systemd-networkd.service",
            wants.join("systemd-networkd.service"),
        )?;
        let nspawn = start(&base, &dir)?;
        let mut machine = Self { nspawn, base, dir };
        machine.wait()?;
        step.done("booted");
        Ok(machine)
    }

    /// Until it is up, and reached.
    pub(super) fn wait(&mut self) -> anyhow::Result<()> {
        let console = self.dir.join("console");
        let device = format!("ve-{NAME}");
        let pid = self.nspawn.id();
        let is_up = || {
            let _ = run_quietly(Command::new("ip").args(["address", "replace", &format!("{HERE}/24"), "dev", &device]));
            let _ = run_quietly(Command::new("ip").args(["link", "set", &device, "up"]));
            let Ok(leader) = leader(pid) else { return false };
            let Ok(state) = entered(leader, &["systemctl", "is-system-running"]).output() else { return false };
            // Degraded where a unit of Debian's can't work in here, such as one for a clock.
            matches!(String::from_utf8_lossy(&state.stdout).trim(), "running" | "degraded")
        };
        let nspawn = &mut self.nspawn;
        let lives = || nspawn.try_wait()?.map_or(Ok(()), |status| bail!("systemd-nspawn ended: {status}"));
        wait_until("the VPS", BOOTS_WITHIN, lives, is_up).with_context(|| tail(&console))
    }

    /// Runs a script in it, as root, and returns what it says.
    pub(super) fn run(&self, script: &str) -> anyhow::Result<String> {
        run_quietly(&mut entered(leader(self.nspawn.id())?, &["bash", "-c", script]))
    }

    /// Puts a file into it.
    pub(super) fn put(&self, from: &Path, to: &str) -> anyhow::Result<()> {
        let file = File::open(from).with_context(|| from.display().to_string())?;
        let mut command =
            entered(leader(self.nspawn.id())?, &["sh", "-c", "mkdir -p \"$(dirname \"$0\")\" && cat > \"$0\"", to]);
        let output = command.stdin(file).output()?;
        if !output.status.success() {
            bail!("{to}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    /// What its programs have said.
    pub(super) fn journal(&self) -> String {
        let look = "for unit in rabbitmq-server haproxy 'postgresql@*' 'gavel-*'; do journalctl --no-pager --lines 15 --unit \"$unit\"; done";
        self.run(look).unwrap_or_default()
    }

    /// Until it has gone down, as it was asked to, and is up again.
    pub(super) fn comes_back(&mut self) -> anyhow::Result<()> {
        let status = self.nspawn.wait()?;
        if status.code() != Some(WANTS_TO_BOOT) {
            bail!("it has ended and does not want to boot: {status}");
        }
        self.nspawn = start(&self.base, &self.dir)?;
        self.wait()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Ok(pid) = leader(self.nspawn.id()) {
            let _ = run_quietly(Command::new("kill").args(["-KILL", &pid.to_string()]));
        }
        let _ = self.nspawn.kill();
        let _ = self.nspawn.wait();
    }
}

/// With control groups of its own, which this machine may have in another version; limits are not enforced there.
fn start(base: &Path, dir: &Path) -> anyhow::Result<Child> {
    let script = "umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup
        mount -t overlay overlay -o lowerdir=$1,upperdir=$2/upper,workdir=$2/work $2/root
        exec systemd-nspawn --quiet --directory $2/root --machine $3 --boot --register=no --keep-unit \
          --network-veth --link-journal=no --resolv-conf=off --console=passive";
    let log = File::create(dir.join("console"))?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-ec", script, "sh"]).arg(base).arg(dir).arg(NAME);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn().map_err(Into::into)
}

/// systemd-nspawn's child.
fn leader(nspawn: u32) -> anyhow::Result<u32> {
    let said = run_quietly(Command::new("pgrep").args(["--parent", &nspawn.to_string()]))?;
    said.split_whitespace().next().context("it has no process")?.parse().context("a process id")
}

fn entered(pid: u32, command: &[&str]) -> Command {
    let mut nsenter = Command::new("nsenter");
    nsenter.args(["--target", &pid.to_string(), "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd"]);
    nsenter.args(command).env_clear();
    nsenter.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root");
    nsenter.env("LANG", "C.UTF-8");
    nsenter
}

fn tail(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Made once, by debootstrap, with nothing started.
fn base(dir: &Path) -> anyhow::Result<PathBuf> {
    let base = dir.join("base");
    if base.exists() {
        return Ok(base);
    }
    let step = Step::begin(format!("making a Debian {SUITE} (once)"));
    let partial = dir.join("base.partial");
    run_quietly(Command::new("rm").args(["-rf", "--one-file-system"]).arg(&partial))?;
    fs::create_dir_all(dir)?;
    let include = format!("--include={IMAGE}");
    run_quietly(as_root("debootstrap").args(["--variant=minbase", &include, SUITE]).arg(&partial))?;
    let policy = partial.join("usr/sbin/policy-rc.d");
    fs::write(&policy, "#!/bin/sh\nexit 101\n")?;
    run_quietly(Command::new("chmod").arg("755").arg(&policy))?;
    let mut apt = Command::new("chroot");
    apt.arg(&partial).args(["apt-get", "install", "-y", "-qq", "--no-install-recommends"]).args(PACKAGES);
    run_quietly(apt.env("DEBIAN_FRONTEND", "noninteractive"))?;
    fs::remove_file(policy)?;
    fs::rename(&partial, &base)?;
    step.done("made");
    Ok(base)
}
