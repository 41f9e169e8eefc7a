//! The hosts of a database's URL. libpq's form names several, the first that takes writes is the one:
//! `postgres://user@one:5432,two:5432/name?target_session_attrs=read-write`. sqlx knows one host and no such attribute.
use anyhow::{Context, bail, ensure};
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::PgConnectOptions;
use std::str::FromStr;

/// More hosts than any cluster has.
const MAX_HOSTS: usize = 16;
const ATTRIBUTE: &str = "target_session_attrs=";

/// A variable with a URL, and what that may say of the sessions wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Variable {
    name: &'static str,
    wishes: &'static [&'static str],
}

/// Of the server that takes writes.
pub(super) const PRIMARY: Variable = Variable { name: "DATABASE_URL", wishes: &["read-write", "primary"] };
/// Of one that follows it.
pub(super) const STANDBY: Variable = Variable { name: "GAVEL_READ_URL", wishes: &["read-only", "standby"] };

/// Returns how to connect to each host, in the URL's order.
///
/// # Errors
/// Says what of the URL can't be read, and never what its password is.
pub(super) fn options_of(url: &SecretString, variable: Variable) -> anyhow::Result<Vec<PgConnectOptions>> {
    let (url, name) = (without_attribute(url.expose_secret(), variable)?, variable.name);
    let (scheme, rest) =
        url.split_once("://").with_context(|| format!("{name} has no scheme; allowed: postgres://…"))?;
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (user, hosts) = authority.rsplit_once('@').map_or(("", authority), |(user, hosts)| (user, hosts));
    let at = if authority.contains('@') { "@" } else { "" };
    let hosts: Vec<_> = hosts.split(',').collect();
    ensure!(hosts.len() <= MAX_HOSTS, "{name} has {} hosts; allowed: 1 to {MAX_HOSTS}", hosts.len());
    ensure!(hosts.len() == 1 || !hosts.contains(&""), "{name} has an empty host between two commas");
    let options = hosts.iter().map(|host| {
        let options = PgConnectOptions::from_str(&format!("{scheme}://{user}{at}{host}{path}"));
        // A pooler takes no start-up parameter that it does not know, and PostgreSQL writes floats exactly without it.
        options.map(|options| options.extra_float_digits(None)).with_context(|| format!("{name} can't be read"))
    });
    options.collect()
}

/// The URL without what it says of the sessions wanted, which is clear from where it stands.
fn without_attribute(url: &str, Variable { name, wishes }: Variable) -> anyhow::Result<String> {
    let Some((before, query)) = url.split_once('?') else { return Ok(url.to_owned()) };
    let (wanted, others): (Vec<_>, Vec<_>) = query.split('&').partition(|parameter| parameter.starts_with(ATTRIBUTE));
    for wish in wanted.iter().filter_map(|parameter| parameter.strip_prefix(ATTRIBUTE)) {
        if !wishes.contains(&wish) {
            let allowed = wishes.join(", ");
            bail!("{name} asks for {ATTRIBUTE}{wish}; allowed: {allowed}, or nothing, which means the same");
        }
    }
    let query = others.join("&");
    Ok(if query.is_empty() { before.to_owned() } else { format!("{before}?{query}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(url: &str) -> anyhow::Result<Vec<String>> {
        let options = options_of(&SecretString::from(url), PRIMARY)?;
        Ok(options.iter().map(|options| format!("{}:{}", options.get_host(), options.get_port())).collect())
    }

    #[test]
    fn one_host_or_several_may_be_named() {
        assert_eq!(hosts("postgres://gavel@db/gavel").unwrap(), ["db:5432"]);
        assert_eq!(
            hosts("postgres://gavel:p%40ss@one:5433,two/gavel?sslmode=prefer").unwrap(),
            ["one:5433", "two:5432"]
        );
        assert_eq!(hosts("postgresql://[::1]:5433,[::2]/gavel").unwrap(), ["[::1]:5433", "[::2]:5432"]);
        let url = "postgres://one,two/gavel?target_session_attrs=read-write";
        assert_eq!(hosts(url).unwrap(), ["one:5432", "two:5432"]);
    }

    #[test]
    fn what_cant_be_meant_is_named_without_the_password() {
        for (wrong, why) in [
            ("postgres://u:hunter2@one,/gavel", "empty host"),
            ("postgres://u:hunter2@one:many/gavel", "can't be read"),
            ("postgres://u:hunter2@one/gavel?target_session_attrs=standby", "allowed: read-write"),
        ] {
            let said = format!("{:#}", hosts(wrong).unwrap_err());
            assert!(said.contains(why) && !said.contains("hunter2"), "{said}");
        }
    }

    #[test]
    fn a_standbys_url_is_a_primarys_with_another_wish() {
        let of = |url: &str| options_of(&SecretString::from(url), STANDBY);
        assert_eq!(of("postgres://one,two/gavel?target_session_attrs=standby").unwrap().len(), 2);
        let said = of("postgres://one/gavel?target_session_attrs=primary").unwrap_err().to_string();
        assert!(said.contains("GAVEL_READ_URL") && said.contains("allowed: read-only, standby"), "{said}");
    }
}
