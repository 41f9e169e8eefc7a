//! An authority that gives certificates as Let's Encrypt does, by asking who answers under a name: pebble, its own
//! test server, where there is a Go toolchain to build it.
use super::machine::{HERE, THERE};
use crate::{go, progress::run_quietly};
use serde_json::json;
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

const PEBBLE: &str = "github.com/letsencrypt/pebble/v2";
const VERSION: &str = "v2.10.0";

pub(super) struct Authority {
    process: Child,
    /// Whom clients of its own port trust.
    pub(super) own: PathBuf,
    /// Whom clients of those trust who have a certificate of it.
    pub(super) root: PathBuf,
}

impl Authority {
    /// Starts it; it finds `host` at the VPS.
    pub(super) fn start(dir: &Path, host: &str) -> anyhow::Result<Self> {
        let module = go::module_dir(&format!("{PEBBLE}@{VERSION}"))?;
        let program = go::install(&format!("{PEBBLE}/cmd/pebble@{VERSION}"))?;
        let certificates = module.join("test/certs/localhost");
        let (hosts, config) = (dir.join("hosts"), dir.join("pebble.json"));
        fs::write(&hosts, format!("127.0.0.1 localhost\n{THERE} {host}\n"))?;
        let configuration = json!({ "pebble": {
            "listenAddress": format!("{HERE}:14000"), "managementListenAddress": "127.0.0.1:15000",
            "certificate": certificates.join("cert.pem"), "privateKey": certificates.join("key.pem"),
            "httpPort": 80, "tlsPort": 443, "ocspResponderURL": "", "externalAccountBindingRequired": false,
            "domainBlocklist": [], "retryAfter": { "authz": 1, "order": 1 },
        } });
        fs::write(&config, configuration.to_string())?;
        let log = File::create(dir.join("pebble.log"))?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-ec", "mount --bind \"$0\" /etc/hosts; exec \"$@\""]).arg(hosts).arg(program);
        command.arg("-config").arg(config).env("PEBBLE_VA_NOSLEEP", "1").env("PEBBLE_WFE_NONCEREJECT", "0");
        let process = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        let own = module.join("test/certs/pebble.minica.pem");
        let root = dir.join("root.pem");
        let authority = Self { process, own, root };
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--fail", "--retry", "20", "--retry-connrefused", "--retry-delay", "1", "--cacert"]);
        curl.arg(&authority.own).args(["https://127.0.0.1:15000/roots/0", "--output"]).arg(&authority.root);
        thread::sleep(Duration::from_millis(200));
        run_quietly(&mut curl)?;
        Ok(authority)
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
