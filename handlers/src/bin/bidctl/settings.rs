//! Where settings come from: flags, the environment, the file that `cargo xtask up` writes.
use crate::{Global, identity};
use anyhow::{Context, bail};
use gavel_runtime::config::{Backends, Env};
use std::{collections::HashMap, env, path::PathBuf};

/// Written by `cargo xtask up`, looked for in this directory and those above it.
const DEVELOPMENT_FILE: &str = ".gavel/dev.env";
const DEFAULT_URL: &str = "http://127.0.0.1:8080";
const DEFAULT_OPS_URL: &str = "http://127.0.0.1:8081";

pub(crate) struct Settings {
    variables: HashMap<String, String>,
    pub(crate) url: String,
    /// Where the service listens to operators.
    pub(crate) ops_url: String,
    pub(crate) user: Option<String>,
    token: Option<String>,
    /// Whether `cargo xtask up` has left its settings here or above.
    pub(crate) in_checkout: bool,
}

impl Settings {
    pub(crate) fn load(global: Global) -> anyhow::Result<Self> {
        let mut variables = development_file()?;
        let in_checkout = !variables.is_empty();
        variables.extend(env::vars());
        let get = |name: &str| variables.get(name).filter(|value| !value.is_empty()).cloned();
        let url = global.url.or_else(|| get("GAVEL_URL")).unwrap_or_else(|| DEFAULT_URL.to_owned());
        let ops_url = global.ops_url.or_else(|| get("GAVEL_OPS_URL")).unwrap_or_else(|| DEFAULT_OPS_URL.to_owned());
        let token = global.token.or_else(|| get("GAVEL_TOKEN"));
        Ok(Self { variables, url, ops_url, user: global.user, token, in_checkout })
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
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

    /// The token to call with: minted for `--user`, else the given one.
    pub(crate) fn token(&self, role: &str) -> anyhow::Result<String> {
        match (&self.user, &self.token) {
            (Some(user), _) => identity::mint(self, user, &[role], 60),
            (None, Some(token)) => Ok(token.clone()),
            (None, None) => {
                bail!("who calls? Give --user NAME (with the development key), or --token or GAVEL_TOKEN")
            }
        }
    }

    /// As [`Settings::token`], for calls that anyone may make.
    pub(crate) fn token_if_any(&self, role: &str) -> anyhow::Result<Option<String>> {
        if self.user.is_none() && self.token.is_none() { Ok(None) } else { self.token(role).map(Some) }
    }
}

fn development_file() -> anyhow::Result<HashMap<String, String>> {
    let here = env::current_dir()?;
    let found: Option<PathBuf> = here.ancestors().map(|dir| dir.join(DEVELOPMENT_FILE)).find(|file| file.is_file());
    let Some(file) = found else { return Ok(HashMap::new()) };
    let text = std::fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
    let pairs = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    Ok(pairs.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect())
}
