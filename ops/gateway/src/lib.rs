//! The TLS gateway on this machine, for the development loop and for the tests: the configurations beside this crate,
//! filled in, with a certificate that it signs itself.
use anyhow::{Context, bail};
use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Which program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The usual one.
    Nginx,
    /// The alternative.
    Haproxy,
}

/// A gateway to be started.
#[derive(Debug, Clone)]
pub struct Gateway {
    /// On which program.
    pub kind: Kind,
    /// The port, on every address of this machine.
    pub port: u16,
    /// The services.
    pub services: Vec<Upstream>,
    /// Where its configuration, certificate and logs are put.
    pub dir: PathBuf,
    /// Of one address; a test's clients all have the same.
    pub limits: Limits,
}

/// A service behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Where its calls go, `host:port`.
    pub address: String,
    /// Its operators' port, which says until its end how it is.
    pub ops_port: u16,
}

/// What one address may do.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Calls a second; twice as many may come at once.
    pub calls_per_second: u32,
    /// Connections, and streams over them, at the same time.
    pub connections: u32,
}

impl Limits {
    /// What a browser or an office behind one address needs.
    pub const USUAL: Self = Self { calls_per_second: 200, connections: 1_000 };
}

impl Gateway {
    /// Writes what it needs, and gives the command that runs it in the foreground. SIGTERM ends it, SIGQUIT (nginx) or
    /// SIGUSR1 (HAProxy) lets it finish first.
    ///
    /// # Errors
    /// When something can't be written, or openssl is missing.
    pub fn prepare(&self) -> anyhow::Result<Command> {
        fs::create_dir_all(&self.dir).with_context(|| format!("can't create {}", self.dir.display()))?;
        let (certificate, key) = certificate(&self.dir)?;
        let (template, program) = match self.kind {
            Kind::Nginx => (include_str!("../nginx.conf"), "nginx"),
            Kind::Haproxy => (include_str!("../haproxy.cfg"), "haproxy"),
        };
        let certificate = if self.kind == Kind::Haproxy { joined(&certificate, &key)? } else { certificate };
        let config = [
            ("LISTEN", self.port.to_string()),
            ("LISTEN_HTTP", self.http_socket()),
            // Nobody gives this machine a certificate.
            ("ACME", "127.0.0.1:9".to_owned()),
            ("STATUS", format!("{} mode 600", self.dir.join("status.sock").display())),
            ("UPSTREAMS", self.upstreams()),
            ("CERTIFICATE", certificate.display().to_string()),
            ("CERTIFICATE_KEY", key.display().to_string()),
            ("DIR", self.dir.display().to_string()),
            ("CALLS_PER_SECOND", self.limits.calls_per_second.to_string()),
            ("CONNECTIONS_PER_CLIENT", self.limits.connections.to_string()),
        ]
        .iter()
        .fold(without_comments(template), |text, (name, value)| text.replace(&format!("${{{name}}}"), value));
        let path = self.dir.join(format!("{program}.conf"));
        fs::write(&path, config).with_context(|| format!("can't write {}", path.display()))?;
        let mut command = Command::new(program);
        match self.kind {
            Kind::Nginx => command.arg("-e").arg("stderr").arg("-p").arg(&self.dir).arg("-c").arg(&path),
            Kind::Haproxy => command.arg("-db").arg("-f").arg(&path),
        };
        if self.kind == Kind::Nginx {
            command.args(["-g", "daemon off;"]);
        }
        command.current_dir(&self.dir);
        // Debian keeps both outside an ordinary user's path.
        command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
        Ok(command)
    }

    /// Where what comes without TLS is led to the port that has it: a socket in its directory, not a second port.
    fn http_socket(&self) -> String {
        let socket = self.dir.join("http.sock");
        // nginx leaves it when it is killed, and does not start again where it is.
        let _ = fs::remove_file(&socket);
        match self.kind {
            Kind::Nginx => format!("unix:{}", socket.display()),
            Kind::Haproxy => format!("unix@{}", socket.display()),
        }
    }

    fn upstreams(&self) -> String {
        let lines = self.services.iter().enumerate().map(|(number, Upstream { address, ops_port })| match self.kind {
            // Passed by for a second when it does not answer, then tried again.
            Kind::Nginx => format!("server {address} max_fails=1 fail_timeout=1s;"),
            Kind::Haproxy => format!("server s{number} {address} port {ops_port}"),
        });
        lines.collect::<Vec<_>>().join("\n    ")
    }
}

/// Comments name the places that are filled in.
fn without_comments(template: &str) -> String {
    let lines = template.lines().filter(|line| !line.trim_start().starts_with('#'));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Not an authority: strict clients take none of those for a server.
const REQUEST: &str = "[req]
prompt = no
distinguished_name = name
x509_extensions = extensions
[name]
CN = localhost
[extensions]
basicConstraints = critical, CA:FALSE
keyUsage = digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, IP:127.0.0.1
";

/// A certificate for this machine, signed by itself, made once. Its own file is what clients trust.
///
/// # Errors
/// When openssl is missing or fails.
pub fn certificate(dir: &Path) -> anyhow::Result<(PathBuf, PathBuf)> {
    let (certificate, key) = (dir.join("certificate.pem"), dir.join("certificate-key.pem"));
    if certificate.exists() && key.exists() {
        return Ok((certificate, key));
    }
    let request = dir.join("certificate.cnf");
    fs::write(&request, REQUEST).with_context(|| format!("can't write {}", request.display()))?;
    let mut openssl = Command::new("openssl");
    openssl
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "365"])
        .arg("-config")
        .arg(&request)
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate);
    let made = openssl.stdin(Stdio::null()).output().context("openssl can't be run")?;
    if !made.status.success() {
        bail!("openssl made no certificate: {}", String::from_utf8_lossy(&made.stderr));
    }
    Ok((certificate, key))
}

/// HAProxy wants both in one file.
fn joined(certificate: &Path, key: &Path) -> anyhow::Result<PathBuf> {
    let both = certificate.with_file_name("certificate-and-key.pem");
    let _ = fs::remove_file(&both);
    // The key is nobody else's business.
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&both)?;
    file.write_all((fs::read_to_string(certificate)? + &fs::read_to_string(key)?).as_bytes())?;
    Ok(both)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_of_both_configurations_is_filled_in() {
        for kind in [Kind::Nginx, Kind::Haproxy] {
            let dir = std::env::temp_dir().join(format!("gavel-gateway-{}-{kind:?}", std::process::id()));
            let services =
                ["127.0.0.1:1", "127.0.0.1:2"].map(|address| Upstream { address: address.to_owned(), ops_port: 3 });
            let services = services.to_vec();
            let gateway = Gateway { kind, port: 1, services, dir: dir.clone(), limits: Limits::USUAL };
            let command = gateway.prepare().unwrap();
            let name = format!("{}.conf", command.get_program().to_string_lossy());
            let config = fs::read_to_string(dir.join(name)).unwrap();
            assert!(!config.contains("${"), "{config}");
            assert!(config.contains("127.0.0.1:1") && config.contains("127.0.0.1:2"));
            fs::remove_dir_all(dir).unwrap();
        }
    }
}
