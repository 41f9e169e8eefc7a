//! Reading variables, and remembering everything that is wrong with them.
use super::ConfigError;
use crate::base::files;
use secrecy::{ExposeSecret, SecretString};
use std::{collections::HashMap, fmt, path::Path, str::FromStr, time::Duration};

/// Every variable of ours begins so.
const PREFIX: &str = "GAVEL_";
/// What only tests set, and nothing lists.
const OF_TESTS: [&str; 2] = ["GAVEL_BOUNDARY", "GAVEL_FAILPOINTS"];

/// Reads variables and remembers what was wrong with them.
pub struct Env {
    variables: HashMap<String, String>,
    problems: Vec<String>,
}

/// Names only: values may be secrets.
impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names: Vec<_> = self.variables.keys().collect();
        names.sort_unstable();
        f.debug_struct("Env").field("names", &names).field("problems", &self.problems).finish()
    }
}

impl Env {
    /// This process's environment.
    pub fn from_process() -> Self {
        Self::new(
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        )
    }

    /// The given variables.
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let variables = variables.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        Self { variables, problems: Vec::new() }
    }

    /// Notes one more thing that is wrong.
    pub(super) fn problem(&mut self, problem: String) {
        self.problems.push(problem);
    }

    /// A variable as it is set.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// A variable that may be absent.
    pub fn optional<T: FromStr<Err: fmt::Display>>(&mut self, name: &str, allowed: &str) -> Option<T> {
        let value = self.variables.get(name)?;
        match value.parse() {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.problems.push(format!("{name} is {value:?}: {error}; allowed: {allowed}"));
                None
            }
        }
    }

    /// A number within limits, or its default.
    pub fn number(&mut self, name: &str, default: u32, (least, most): (u32, u32)) -> u32 {
        let allowed = format!("{least} to {most}");
        let number = self.optional(name, &allowed).unwrap_or(default);
        if !(least..=most).contains(&number) {
            self.problems.push(format!("{name} is {number}; allowed: {allowed}"));
        }
        number
    }

    /// Milliseconds within limits, or their default.
    pub(super) fn millis(&mut self, name: &str, default: u32, limits: (u32, u32)) -> Duration {
        Duration::from_millis(self.number(name, default, limits).into())
    }

    /// A list of values separated by commas, each checked by itself; empty where the variable is absent.
    pub(super) fn list<T: FromStr<Err: fmt::Display>>(&mut self, name: &str, allowed: &str) -> Vec<T> {
        let text = self.text(name, "");
        let mut values = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match part.parse() {
                Ok(value) => values.push(value),
                Err(error) => self.problems.push(format!("{name} has {part:?}: {error}; allowed: {allowed}")),
            }
        }
        values
    }

    /// A text, or its default.
    pub fn text(&mut self, name: &str, default: &str) -> String {
        self.variables.get(name).map_or(default, String::as_str).to_owned()
    }

    /// The text of the file that a variable names, which may be absent.
    pub fn optional_file(&mut self, name: &str) -> Option<String> {
        let path = self.variables.get(name)?;
        match files::read_text(Path::new(path)) {
            Ok(text) => Some(text),
            Err(error) => {
                self.problems.push(format!("{name} names {path:?}, which can't be read: {error}"));
                None
            }
        }
    }

    /// A required secret, from `name` or from the file that `name_FILE` names.
    pub fn secret(&mut self, name: &str, what: &str) -> SecretString {
        let from_file = format!("{name}_FILE");
        let value = match (self.variables.get(name), self.variables.get(&from_file)) {
            (Some(_), Some(_)) => Err(format!("{name} and {from_file} are both set; allowed: one of them")),
            (Some(value), None) => Ok(value.clone()),
            (None, Some(path)) => files::read_text(Path::new(path))
                .map(|text| text.trim_end().to_owned())
                .map_err(|error| format!("{from_file} names {path:?}, which can't be read: {error}")),
            (None, None) => Err(format!("{name} is missing: {what} (or {from_file}, a path to it)")),
        };
        SecretString::from(value.unwrap_or_else(|problem| {
            self.problems.push(problem);
            String::new()
        }))
    }

    /// A required secret that must be a URL of one of these schemes.
    pub fn secret_url(&mut self, name: &str, schemes: &[&str], what: &str) -> SecretString {
        let found = self.problems.len();
        let secret = self.secret(name, what);
        let fits = |url: &str| schemes.iter().any(|scheme| url.starts_with(&format!("{scheme}://")));
        if self.problems.len() == found && !fits(secret.expose_secret()) {
            self.problems.push(format!("{name} is no such URL; allowed: {}://…, {what}", schemes.join("://… or ")));
        }
        secret
    }

    /// Variables that begin as ours do and stand in none of these texts, which list what is read: most likely somebody has
    /// misspelt one, and the default counts.
    pub fn unlisted(&self, lists: &[&str]) -> Vec<String> {
        let is_listed = |name: &str| {
            let name = name.strip_suffix("_FILE").unwrap_or(name);
            let words = lists.iter().flat_map(|list| list.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')));
            words.chain(OF_TESTS).any(|word| word == name)
        };
        let ours = self.variables.keys().filter(|name| name.starts_with(PREFIX) && !is_listed(name));
        let mut names: Vec<_> = ours.cloned().collect();
        names.sort_unstable();
        names
    }

    /// All problems at once, if there are any.
    pub fn finish(self) -> Result<(), ConfigError> {
        if self.problems.is_empty() { Ok(()) } else { Err(ConfigError { problems: self.problems }) }
    }
}
