//! What a pod's container says, made a process.
use super::super::kubectl::Kubectl;
use anyhow::{Context, bail};
use serde_json::Value;
use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

/// An image's name, and the directory with what would be in its /bin.
pub(crate) struct Image {
    pub(crate) name: String,
    pub(crate) bin: PathBuf,
}

/// An HTTP probe.
pub(super) struct Probe {
    port: u16,
    path: String,
    timeout: Duration,
    pub(super) period: Duration,
}

impl Probe {
    fn of(container: &Value, name: &str) -> anyhow::Result<Option<Self>> {
        let probe = &container[name];
        if probe.is_null() {
            return Ok(None);
        }
        let ports = container["ports"].as_array().context("it has ports")?;
        let port = ports.iter().find(|port| port["name"] == probe["httpGet"]["port"]).context("the probe's port")?;
        let seconds = |name: &str, default| Duration::from_secs(probe[name].as_u64().unwrap_or(default));
        Ok(Some(Self {
            port: u16::try_from(port["containerPort"].as_u64().context("a port")?)?,
            path: probe["httpGet"]["path"].as_str().context("a path")?.to_owned(),
            timeout: seconds("timeoutSeconds", 1),
            period: seconds("periodSeconds", 10),
        }))
    }

    pub(super) fn is_well(&self, address: &str) -> bool {
        let request = ureq::get(format!("http://{address}:{}{}", self.port, self.path));
        request.config().timeout_global(Some(self.timeout)).build().call().is_ok()
    }
}

/// One container's.
pub(super) struct Program {
    pub(super) container: String,
    pub(super) image: String,
    pub(super) startup: Option<Probe>,
    pub(super) readiness: Option<Probe>,
    /// It is started again when it ends.
    pub(super) is_kept_up: bool,
    command: Vec<String>,
    environment: Vec<(String, String)>,
    /// Where, and what stands there.
    mounts: Vec<(String, PathBuf)>,
    bin: PathBuf,
    user: u64,
    log: PathBuf,
    process: Option<Child>,
    start_at: Instant,
}

impl Program {
    pub(super) fn of(
        pod: &Value,
        address: &str,
        kubectl: &Kubectl,
        images: &[Image],
        dir: &Path,
    ) -> anyhow::Result<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned).context("a text is missing");
        let (namespace, name) = (text(&pod["metadata"]["namespace"])?, text(&pod["metadata"]["name"])?);
        let container = &pod["spec"]["containers"][0];
        let image = text(&container["image"])?;
        let bin =
            images.iter().find(|known| known.name == image).with_context(|| format!("there is no image {image}"))?;
        let dir = dir.join(&name);
        fs::create_dir_all(&dir)?;
        let strings = |value: &Value| -> Vec<String> {
            value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let mut program = Self {
            container: text(&container["name"])?,
            image,
            startup: Probe::of(container, "startupProbe")?,
            readiness: Probe::of(container, "readinessProbe")?,
            is_kept_up: pod["spec"]["restartPolicy"] == "Always",
            command: [strings(&container["command"]), strings(&container["args"])].concat(),
            environment: environment(container, &namespace, address, kubectl)?,
            mounts: mounts(pod, container, &namespace, kubectl, &dir)?,
            bin: bin.bin.clone(),
            user: pod["spec"]["securityContext"]["runAsUser"].as_u64().context("a user")?,
            log: dir.join("log"),
            process: None,
            start_at: Instant::now(),
        };
        program.start()?;
        Ok(program)
    }

    /// As its user, without rights, in a mount namespace that has the image's programs and the pod's files.
    fn start(&mut self) -> anyhow::Result<()> {
        let [program, arguments @ ..] = &self.command[..] else { bail!("it has no command") };
        let program = program.strip_prefix("/bin/").context("a program of the image")?;
        let mounts =
            self.mounts.iter().map(|(at, from)| format!("mkdir -p {at}; mount --bind {} {at}; ", from.display()));
        let script = format!(
            "mount -t tmpfs none /run; mkdir /run/image; mount --bind \"$0\" /run/image; {}\
             exec setpriv --reuid {user} --regid {user} --clear-groups --no-new-privs --bounding-set=-all \"$@\"",
            mounts.collect::<String>(),
            user = self.user,
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-ec", &script]).arg(&self.bin);
        command.arg(format!("/run/image/{program}")).args(arguments);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").envs(self.environment.iter().cloned());
        let log = File::options().create(true).append(true).open(&self.log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        self.process = Some(command.spawn()?);
        Ok(())
    }

    /// Starts it once more, after a while.
    pub(super) fn start_after(&mut self, pause: Duration) {
        (self.process, self.start_at) = (None, Instant::now() + pause);
    }

    /// How it has ended, where it has.
    pub(super) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        match &mut self.process {
            Some(process) => Ok(process.try_wait()?),
            None if Instant::now() >= self.start_at => {
                self.start()?;
                Ok(None)
            }
            None => Ok(None),
        }
    }

    pub(super) fn signal(&self, signal: &str) {
        if let Some(process) = &self.process {
            let _ = Command::new("kill").arg(format!("-{signal}")).arg(process.id().to_string()).status();
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Its variables. What listens on every address listens on the pod's: there is one network for all.
fn environment(
    container: &Value,
    namespace: &str,
    address: &str,
    kubectl: &Kubectl,
) -> anyhow::Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for from in container["envFrom"].as_array().into_iter().flatten() {
        let name = from["configMapRef"]["name"].as_str().context("variables come from a ConfigMap")?;
        let found = kubectl.get(&["configmap", name, "--namespace", namespace])?;
        for (name, value) in found["data"].as_object().into_iter().flatten() {
            all.push((name.clone(), value.as_str().unwrap_or_default().to_owned()));
        }
    }
    for variable in container["env"].as_array().into_iter().flatten() {
        let value = variable["value"].as_str().context("a variable has a value")?;
        all.push((variable["name"].as_str().context("a name")?.to_owned(), value.to_owned()));
    }
    let listening =
        |value: String| value.strip_prefix("0.0.0.0:").map_or(value.clone(), |port| format!("{address}:{port}"));
    Ok(all.into_iter().map(|(name, value)| (name, listening(value))).collect())
}

/// The files of its volumes, which are secrets.
fn mounts(
    pod: &Value,
    container: &Value,
    namespace: &str,
    kubectl: &Kubectl,
    dir: &Path,
) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut mounts = Vec::new();
    for mount in container["volumeMounts"].as_array().into_iter().flatten() {
        let volumes = pod["spec"]["volumes"].as_array().context("it has volumes")?;
        let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]).context("the mount's volume")?;
        let secret = volume["secret"]["secretName"].as_str().context("a volume is a secret")?;
        let found = kubectl.get(&["secret", secret, "--namespace", namespace])?;
        let from = dir.join(secret);
        fs::create_dir_all(&from)?;
        for (name, value) in found["data"].as_object().into_iter().flatten() {
            let mut decode = Command::new("base64");
            let text = super::super::kubectl::piped(decode.arg("--decode"), value.as_str().unwrap_or_default())?;
            fs::write(from.join(name), text)?;
        }
        mounts.push((mount["mountPath"].as_str().context("a path")?.to_owned(), from));
    }
    Ok(mounts)
}
