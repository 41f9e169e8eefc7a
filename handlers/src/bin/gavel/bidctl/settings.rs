//! Where settings come from: flags, the environment, the file that `cargo xtask up` writes.
use crate::bidctl::checkout;
use anyhow::{Context, ensure};
use clap::Args;
use gavel_runtime::config::{Backends, Env};
use std::{
    collections::HashMap,
    env, fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Written by `cargo xtask up` into its checkout.
const DEVELOPMENT_FILE: &str = ".gavel/dev.env";
const PROCESSES: &str = "GAVEL_PROCESSES";
/// All that are read here and nowhere else.
pub(crate) const VARIABLES: &str = "GAVEL_URL, GAVEL_OPS_URL, GAVEL_CACERT, GAVEL_TOKEN, GAVEL_PROCESSES";
const DEFAULT_URL: &str = "http://127.0.0.1:8080";
const DEFAULT_OPS_URL: &str = "http://127.0.0.1:8081";

#[derive(Args)]
pub(crate) struct Global {
    /// Where bid-service listens [GAVEL_URL, else http://127.0.0.1:8080]
    #[arg(long, global = true)]
    url: Option<String>,
    /// Where bid-service listens to operators [GAVEL_OPS_URL, else http://127.0.0.1:8081]
    #[arg(long, global = true, value_name = "URL")]
    ops_url: Option<String>,
    /// PEM: who may vouch for a service behind https [GAVEL_CACERT, else the authorities known to everybody]
    #[arg(long, global = true, value_name = "FILE")]
    cacert: Option<PathBuf>,
    /// Call as this user, with a token minted from the development key; of what goes to the database itself, who does it
    #[arg(long, global = true, value_name = "NAME")]
    user: Option<String>,
    /// Call with this bearer token [GAVEL_TOKEN]
    #[arg(long, global = true, conflicts_with = "user")]
    token: Option<String>,
    /// Print JSON instead of a table
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

pub(crate) struct Settings {
    variables: HashMap<String, String>,
    /// Names of those that the development file has given, and nobody else.
    from_file: Vec<String>,
    pub(crate) url: String,
    /// Where the service listens to operators.
    pub(crate) ops_url: String,
    /// PEM: the authorities that may vouch for a service behind https.
    pub(crate) cacert: Option<PathBuf>,
    pub(crate) user: Option<String>,
    pub(crate) token: Option<String>,
    /// True if the addresses come from the development file alone.
    pub(crate) is_url_from_file: bool,
    pub(crate) is_ops_url_from_file: bool,
    /// True if `cargo xtask up` has left its settings in this program's checkout.
    pub(crate) in_checkout: bool,
}

impl Settings {
    pub(crate) fn load(global: Global) -> anyhow::Result<Self> {
        let mut file = development_file()?;
        let in_checkout = !file.is_empty();
        let given: HashMap<_, _> = env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(_, value)| !value.is_empty())
            .collect();
        // A secret is given as itself or in a file of its own: either overrules both forms of ours.
        let plain = |name: &str| name.strip_suffix("_FILE").unwrap_or(name).to_owned();
        file.retain(|name, _| !given.keys().any(|given| plain(given) == plain(name)));
        let from_file: Vec<_> = file.keys().filter(|name| !given.contains_key(*name)).cloned().collect();
        let (has_url, has_ops_url) = (global.url.is_some(), global.ops_url.is_some());
        let is_from_file = |flag: bool, name: &str| !flag && from_file.iter().any(|known| known == name);
        let is_url_from_file = is_from_file(has_url, "GAVEL_URL");
        let is_ops_url_from_file = is_from_file(has_ops_url, "GAVEL_OPS_URL");
        let mut variables = file;
        variables.extend(given);
        let get = |name: &str| variables.get(name).filter(|value| !value.is_empty()).cloned();
        Ok(Self {
            url: global.url.or_else(|| get("GAVEL_URL")).unwrap_or_else(|| DEFAULT_URL.to_owned()),
            ops_url: global.ops_url.or_else(|| get("GAVEL_OPS_URL")).unwrap_or_else(|| DEFAULT_OPS_URL.to_owned()),
            cacert: global.cacert.or_else(|| get("GAVEL_CACERT").map(PathBuf::from)),
            token: global.token.or_else(|| get("GAVEL_TOKEN")),
            user: global.user,
            is_url_from_file,
            is_ops_url_from_file,
            in_checkout,
            from_file,
            variables,
        })
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Operators' addresses of the processes that there are, as far as somebody has said.
    pub(crate) fn processes(&self) -> Vec<String> {
        // Where another service is named, those of the development file are not its.
        let is_of_another = self.from_file.iter().any(|name| name == PROCESSES) && !self.is_ops_url_from_file;
        let named = self.get(PROCESSES).filter(|_| !is_of_another).unwrap_or(&self.ops_url);
        named.split(',').map(|address| address.trim().to_owned()).collect()
    }

    pub(crate) fn env(&self) -> Env {
        Env::new(self.variables.clone())
    }

    pub(crate) fn backends(&self) -> anyhow::Result<Backends> {
        let mut env = self.env();
        let backends = Backends::from_env(&mut env);
        env.finish()?;
        Ok(backends)
    }

    pub(crate) fn is_from_file(&self, name: &str) -> bool {
        self.from_file.iter().any(|known| known == name || known.strip_suffix("_FILE") == Some(name))
    }
}

/// The settings that `cargo xtask up` has left in the checkout that this program was built in, where we are inside of
/// it.
fn development_file() -> anyhow::Result<HashMap<String, String>> {
    let files = checkout::roots().into_iter().map(|dir| dir.join(DEVELOPMENT_FILE));
    let Some(file) = files.into_iter().find(|file| file.is_file()) else {
        return Ok(HashMap::new());
    };
    check_owner(&file)?;
    let text = fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
    let pairs = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    Ok(pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect())
}

/// Whoever can write the file says where our tokens go, and whoever can read it has the passwords.
fn check_owner(file: &Path) -> anyhow::Result<()> {
    let (its, ours) = (fs::metadata(file)?, fs::metadata("/proc/self")?);
    ensure!(its.uid() == ours.uid(), "{} belongs to somebody else: it is not read", file.display());
    let mode = its.mode() & 0o777;
    ensure!(mode.trailing_zeros() >= 6, "{} has mode {mode:o}, and others can get at it; allowed: 600", file.display());
    Ok(())
}
