//! A `bid-service` as it is released, in a process of its own.
use anyhow::{Context, bail};
use gavel_runtime::auth::{self, Claims};
use secrecy::SecretString;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Ports that the system chooses.
pub(crate) const ANYWHERE: [(&str, &str); 2] = [("GAVEL_LISTEN", "127.0.0.1:0"), ("GAVEL_OPS_LISTEN", "127.0.0.1:0")];
/// A few clients stand for many callers, and all have one address: what is counted for each is counted, and never too
/// much.
pub(crate) const BOUNDLESS: [(&str, &str); 6] = [
    ("GAVEL_CALLS_PER_CALLER", "1000000"),
    ("GAVEL_READS_PER_CALLER", "1000000"),
    ("GAVEL_READS_PER_ADDRESS", "1000000"),
    ("GAVEL_STREAMS_PER_CALLER", "1000000"),
    ("GAVEL_STREAMS_PER_ADDRESS", "0"),
    ("GAVEL_CONNECTIONS_PER_ADDRESS", "1000000"),
];

/// A running process of ours. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: String,
    pub(crate) ops_address: String,
}

/// Where the binaries are, and the keys that tokens are signed with.
pub(crate) struct Releases {
    bins: PathBuf,
    scratch: PathBuf,
    key: SecretString,
}

impl Releases {
    pub(crate) fn in_dir(bins: &str, scratch: &str) -> anyhow::Result<Self> {
        let (bins, scratch) = (PathBuf::from(bins), Path::new(scratch).join("keys"));
        let _ = fs::remove_dir_all(&scratch);
        fs::create_dir_all(&scratch)?;
        let made = Command::new(bins.join("bidctl")).arg("keygen").arg("--dir").arg(&scratch).output()?;
        if !made.status.success() {
            bail!("bidctl keygen: {}", String::from_utf8_lossy(&made.stderr));
        }
        let key = SecretString::from(fs::read_to_string(scratch.join("jwt-signing-key.pem"))?);
        Ok(Self { bins, scratch, key })
    }

    /// Another release's binaries, whose processes take the same tokens.
    pub(crate) fn beside(&self, bins: &str) -> Self {
        Self { bins: PathBuf::from(bins), scratch: self.scratch.clone(), key: self.key.clone() }
    }

    /// Where one of the binaries is.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.bins.join(name)
    }

    /// A bidder's token.
    pub(crate) fn token(&self, user: &str) -> anyhow::Result<String> {
        self.token_of(user, "bidder")
    }

    /// A token of that role.
    pub(crate) fn token_of(&self, user: &str, role: &str) -> anyhow::Result<String> {
        let now = gavel_runtime::clock::wall().timestamp();
        let (iss, aud) = ("gavel".to_owned(), "gavel".to_owned());
        let claims =
            Claims { sub: user.to_owned(), roles: vec![role.to_owned()], iss, aud, iat: now, exp: now + 86_400 };
        auth::mint(&self.key, &claims)
    }

    /// Starts one of the binaries and waits until it listens.
    pub(crate) async fn start(
        &self,
        program: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> anyhow::Result<Process> {
        let log = self.scratch.join(format!("{program}-{}.log", gavel_runtime::ids::random().simple()));
        let child = Command::new(self.bins.join(program))
            .args(arguments)
            .envs(variables.iter().copied())
            .envs(ANYWHERE.into_iter().chain(BOUNDLESS))
            .env("GAVEL_JWT_PUBLIC_KEY_FILE", self.scratch.join("jwt-public-key.pem"))
            .stdin(Stdio::null())
            .stdout(File::create(&log)?)
            .spawn()
            .with_context(|| format!("{program} can't be started"))?;
        let mut process = Process { child, address: String::new(), ops_address: String::new() };
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let text = fs::read_to_string(&log).unwrap_or_default();
            if let Some((address, ops_address)) = text.lines().find_map(addresses_in) {
                (process.address, process.ops_address) = (address, ops_address);
                return Ok(process);
            }
            if process.child.try_wait()?.is_some() || Instant::now() > until {
                bail!("{program} does not listen: {text}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Where it listens to the public and where to operators; the same for one that has a single listener.
fn addresses_in(line: &str) -> Option<(String, String)> {
    let line: serde_json::Value = serde_json::from_str(line).ok()?;
    let [address, ops_address] = ["address", "ops_address"].map(|name| line[name].as_str().map(str::to_owned));
    let only = address.clone().or_else(|| ops_address.clone()).filter(|_| line["msg"] == "ready")?;
    Some((address.unwrap_or_else(|| only.clone()), ops_address.unwrap_or(only)))
}

/// The time that the processors have spent on a process, in seconds.
pub(crate) fn processor_seconds(process: u32) -> anyhow::Result<f64> {
    Stat::of(process)?.own_s()
}

/// What Linux says of a process, from the third field of /proc/PID/stat on: its name, before that, may hold anything.
pub(crate) struct Stat(Vec<String>);

impl Stat {
    pub(crate) fn of(process: u32) -> anyhow::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        Ok(Self(stat.rsplit(')').next().context("no name")?.split_whitespace().map(str::to_owned).collect()))
    }

    /// Who has started it.
    pub(crate) fn parent(&self) -> Option<u32> {
        self.0.get(1)?.parse().ok().filter(|parent| *parent > 1)
    }

    /// Of the processors' time, what it took itself.
    fn own_s(&self) -> anyhow::Result<f64> {
        self.seconds(11)
    }

    /// And what those took that it has started and that have ended.
    pub(crate) fn and_ended_s(&self) -> anyhow::Result<f64> {
        Ok(self.own_s()? + self.seconds(13)?)
    }

    /// Two fields, for a program and for the system on its behalf.
    fn seconds(&self, from: usize) -> anyhow::Result<f64> {
        /// Of a second, as Linux shows them whatever its own clock does.
        const TICKS: f64 = 100.0;
        let ticks = self.0.iter().skip(from).take(2).map(|ticks| ticks.parse::<f64>());
        Ok(ticks.sum::<Result<f64, _>>()? / TICKS)
    }
}

impl Process {
    /// The time that the processors have spent on it, in seconds.
    pub(crate) fn processor_seconds(&self) -> anyhow::Result<f64> {
        processor_seconds(self.child.id())
    }

    /// Its memory now and at most so far, in MiB.
    pub(crate) fn memory(&self) -> anyhow::Result<(f64, f64)> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let of = |name: &str| -> anyhow::Result<f64> {
            let line = status.lines().find(|line| line.starts_with(name)).context("no such line")?;
            Ok(line.split_whitespace().nth(1).context("no figure")?.parse::<f64>()? / 1_024.0)
        };
        Ok((of("VmRSS")?, of("VmHWM")?))
    }
}

impl Process {
    /// Asks it to end, and waits until it has drained.
    pub(crate) async fn drain(mut self) -> anyhow::Result<()> {
        let asked = Command::new("kill").arg("-TERM").arg(self.child.id().to_string()).status()?;
        let until = Instant::now() + Duration::from_mins(1);
        while asked.success() && Instant::now() < until {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("it ended with {status}"),
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        bail!("it did not drain")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
