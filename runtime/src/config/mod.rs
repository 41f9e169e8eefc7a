//! Configuration from the environment: one struct per concern, and one error that lists everything that is wrong.
//!
//! Every secret `NAME` may come from a file instead: `NAME_FILE` holds its path.
mod backends;
mod env;
mod limits;
mod process;
mod tokens;
mod traces;

pub use backends::{Backends, PoolSizes, Standby, Streams};
pub use env::Env;
pub use limits::AdmissionLimits;
pub use process::{ConnectionLimits, Patience, ProcessConfig};
pub use tokens::{KeySource, Location, TokenConfig};
pub use traces::TraceConfig;

use std::fmt;

/// Everything that is missing or malformed, one line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// One line for each variable.
    pub problems: Vec<String>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the configuration has {} problem(s):", self.problems.len())?;
        self.problems.iter().try_for_each(|problem| write!(f, "\n  - {problem}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

    fn env(pairs: &[(&str, &str)]) -> Env {
        Env::new(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn one_error_lists_everything() {
        let mut env = env(&[
            ("AMQP_URL", "http://x"),
            ("REDIS_URL", "redis://x"),
            ("REDIS_URL_FILE", "/x"),
            ("GAVEL_POOL_SIZE", "many"),
            ("GAVEL_LISTEN", "8080"),
            ("GAVEL_GRACE_MS", "1"),
            ("GAVEL_JWT_PUBLIC_KEY_FILE", "/nowhere/key.pem"),
        ]);
        Backends::from_env(&mut env);
        let process = ProcessConfig::of_service(&mut env);
        TokenConfig::from_env(&mut env, &process);
        let text = env.finish().unwrap_err().to_string();
        for named in [
            "DATABASE_URL is missing",
            "AMQP_URL is no such",
            "REDIS_URL and",
            "POOL_SIZE",
            "LISTEN",
            "GRACE_MS",
            "/nowhere/key.pem",
        ] {
            assert!(text.contains(named), "{named} is not in {text}");
        }
        assert!(text.starts_with("the configuration has 7 problem(s)"), "{text}");
    }

    #[test]
    fn a_secret_may_come_from_a_file() {
        let path = std::env::temp_dir().join(format!("gavel-config-test-{}", std::process::id()));
        std::fs::write(&path, "postgres://file\n").unwrap();
        let mut env = env(&[("DATABASE_URL_FILE", path.to_str().unwrap())]);
        assert_eq!(env.secret("DATABASE_URL", "").expose_secret(), "postgres://file");
        std::fs::remove_file(path).unwrap();
        assert_eq!(env.finish(), Ok(()));
    }

    #[test]
    fn what_is_shown_of_an_environment_has_no_values() {
        let env = env(&[("DATABASE_URL", "postgres://gavel:hunter2@db/gavel"), ("GAVEL_POOL_SIZE", "16")]);
        let shown = format!("{env:?}");
        assert!(shown.contains("DATABASE_URL") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn the_development_login_wants_a_process_that_only_its_own_machine_reaches() {
        let with = |listen, ops| {
            let mut env = env(&[
                ("GAVEL_DEV_LOGIN", "true"),
                ("GAVEL_LISTEN", listen),
                ("GAVEL_OPS_LISTEN", ops),
                ("GAVEL_JWT_PUBLIC_KEY", "x"),
                ("GAVEL_JWT_SIGNING_KEY", "x"),
            ]);
            let process = ProcessConfig::of_service(&mut env);
            TokenConfig::from_env(&mut env, &process);
            env.finish()
        };
        assert_eq!(with("127.0.0.1:8080", "[::1]:8081"), Ok(()));
        for (listen, ops) in [("0.0.0.0:8080", "127.0.0.1:8081"), ("127.0.0.1:8080", "10.0.0.1:8081")] {
            let refused = with(listen, ops).unwrap_err().to_string();
            assert!(refused.contains("GAVEL_DEV_LOGIN") && refused.contains("loopback"), "{refused}");
        }
    }

    #[test]
    fn keys_come_over_https_or_from_a_file() {
        let with = |location| {
            let mut env = env(&[("GAVEL_JWKS", location)]);
            let process = ProcessConfig::of_service(&mut env);
            TokenConfig::from_env(&mut env, &process);
            env.finish()
        };
        assert_eq!(with("https://id.example/jwks.json"), Ok(()));
        assert_eq!(with("/etc/gavel/jwks.json"), Ok(()));
        for plain in ["http://id.example/jwks.json", "ftp://id.example/jwks.json"] {
            assert!(with(plain).unwrap_err().to_string().contains("https://"), "{plain}");
        }
    }

    #[test]
    fn trusted_proxies_are_addresses_or_networks() {
        let with = |proxies| {
            let mut env = env(&[("GAVEL_TRUSTED_PROXIES", proxies)]);
            let networks = ProcessConfig::of_worker(&mut env).connections.trusted_proxies;
            env.finish().map(|()| networks.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(with("10.0.0.0/8, ::1").unwrap(), ["10.0.0.0/8", "::1/128"]);
        assert!(with("10.0.0.0/8,gateway").unwrap_err().to_string().contains("\"gateway\""));
    }
}
