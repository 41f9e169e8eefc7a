//! Certificates of the control plane, and who may do what with it: made anew with each cluster.
use crate::progress::run_quietly;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The authority behind the servers, and the one behind what the API server says of its callers to others.
const CA: &str = "ca";
const FRONT_CA: &str = "front-ca";
const VALID_DAYS: &str = "30";

pub(crate) struct Keys {
    dir: PathBuf,
}

impl Keys {
    pub(crate) fn make(dir: &Path) -> anyhow::Result<Self> {
        let keys = Self { dir: dir.join("pki") };
        fs::create_dir_all(keys.dir.join("keda"))?;
        keys.authority(CA)?;
        keys.authority(FRONT_CA)?;
        let local = "DNS:localhost,IP:127.0.0.1";
        let names = format!("{local},IP:10.96.0.1,DNS:kubernetes.default.svc");
        keys.certificate("server", CA, "/CN=kube-apiserver", &names)?;
        // The API server calls KEDA's programs by their Services' names, and those call each other by address.
        let services = ["keda-operator", "keda-metrics-apiserver", "keda-admission-webhooks"];
        let services = services.map(|name| format!("DNS:{name}.keda.svc")).join(",");
        keys.certificate("keda", CA, "/CN=keda", &format!("{local},{services}"))?;
        for (from, to) in [("ca.crt", "ca.crt"), ("keda.crt", "tls.crt"), ("keda.key", "tls.key")] {
            fs::copy(keys.dir.join(from), keys.dir.join("keda").join(to))?;
        }
        keys.certificate("admin", CA, "/O=system:masters/CN=admin", "")?;
        for name in ["kube-controller-manager", "kube-scheduler"] {
            keys.certificate(name, CA, &format!("/CN=system:{name}"), "")?;
        }
        keys.certificate("front", FRONT_CA, "/CN=front-proxy", "")?;
        let key = keys.file("service-account.key");
        run_quietly(Command::new("openssl").args(["genrsa", "-out", &key, "2048"]))?;
        let public = keys.file("service-account.pub");
        run_quietly(Command::new("openssl").args(["rsa", "-in", &key, "-pubout", "-out", &public]))?;
        Ok(keys)
    }

    /// One of its files.
    pub(crate) fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn authority(&self, name: &str) -> anyhow::Result<()> {
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]);
        openssl.args(["-days", VALID_DAYS, "-subj", &format!("/CN={name}")]);
        openssl.args(["-keyout", &self.file(&format!("{name}.key")), "-out", &self.file(&format!("{name}.crt"))]);
        run_quietly(&mut openssl).map(drop)
    }

    fn certificate(&self, name: &str, by: &str, subject: &str, names: &str) -> anyhow::Result<()> {
        let [key, request, certificate] = ["key", "csr", "crt"].map(|end| self.file(&format!("{name}.{end}")));
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", subject]);
        run_quietly(openssl.args(["-keyout", &key, "-out", &request]))?;
        let names = if names.is_empty() { String::new() } else { format!("subjectAltName={names}\n") };
        let extensions = self.file(&format!("{name}.ext"));
        fs::write(&extensions, format!("keyUsage=digitalSignature\nextendedKeyUsage=serverAuth,clientAuth\n{names}"))?;
        let mut openssl = Command::new("openssl");
        openssl.args(["x509", "-req", "-in", &request, "-CAcreateserial", "-days", VALID_DAYS, "-out", &certificate]);
        let [authority, its_key] = ["crt", "key"].map(|end| self.file(&format!("{by}.{end}")));
        openssl.args(["-CA", &authority, "-CAkey", &its_key, "-extfile", &extensions]);
        run_quietly(&mut openssl).map(drop)
    }

    /// A file for clients, with a certificate of ours or a token.
    pub(crate) fn kubeconfig(&self, name: &str, port: u16, user: &serde_json::Value) -> anyhow::Result<PathBuf> {
        let server = format!("https://127.0.0.1:{port}");
        let config = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "local",
            "clusters": [{ "name": "local", "cluster": { "server": server, "certificate-authority": self.file("ca.crt") } }],
            "users": [{ "name": name, "user": user }],
            "contexts": [{ "name": "local", "context": { "cluster": "local", "user": name } }],
        });
        let file = self.dir.join(format!("{name}.kubeconfig"));
        fs::write(&file, config.to_string())?;
        Ok(file)
    }

    /// A client of that name, by its certificate.
    pub(crate) fn client(&self, name: &str, port: u16) -> anyhow::Result<PathBuf> {
        let [certificate, key] = ["crt", "key"].map(|end| self.file(&format!("{name}.{end}")));
        self.kubeconfig(name, port, &serde_json::json!({ "client-certificate": certificate, "client-key": key }))
    }
}
