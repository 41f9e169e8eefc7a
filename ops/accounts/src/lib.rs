//! The accounts of Gavel's programs at RabbitMQ and Redis, each with the least rights that it needs: `cargo xtask up`, Compose
//! and every test run under them.
//!
//! The API is what strangers talk to. It hears events and reads the read model; it publishes nothing, and no queue of a worker's
//! is within its reach.

/// A program with an account of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `bid-service`.
    Service,
    /// `bid-worker`.
    Worker,
}

/// What RabbitMQ lets a user do within a vhost: regular expressions over the names of exchanges and queues.
/// See <https://www.rabbitmq.com/docs/access-control#authorisation>.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permissions {
    /// What may be declared and deleted.
    pub configure: String,
    /// What may be published to, and bound.
    pub write: String,
    /// What may be consumed, and bound to.
    pub read: String,
}

impl Program {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Service, Self::Worker];

    /// The name of its account.
    pub fn account(self) -> &'static str {
        match self {
            Self::Service => "gavel_service",
            Self::Worker => "gavel_worker",
        }
    }

    /// Its rights at RabbitMQ, for exchanges and queues of the application `app`.
    pub fn permissions(self, app: &str) -> Permissions {
        match self {
            // A queue without a name of ours, for the life of its connection, bound to the exchange of events.
            Self::Service => Permissions {
                configure: r"^amq\.gen-.*$".to_owned(),
                write: r"^amq\.gen-.*$".to_owned(),
                read: format!(r"^({app}\.events|amq\.gen-.*)$"),
            },
            // The default exchange leads a message back to one consumer's queue.
            Self::Worker => Permissions {
                configure: format!(r"^{app}\..*$"),
                write: format!(r"^({app}\..*|amq\.default|)$"),
                read: format!(r"^{app}\..*$"),
            },
        }
    }

    /// Its rights at Redis, as ACL SETUSER takes them: keys under `prefix`, and the commands that are used, no others.
    /// See <https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/>.
    pub fn acl(self, prefix: &str, password: &str) -> Vec<String> {
        let keys = [format!(">{password}"), format!("~{prefix}:*")];
        let rules = ["reset", "on"].map(str::to_owned).into_iter().chain(keys).chain(["resetchannels".to_owned()]);
        rules.chain(COMMANDS.map(str::to_owned)).collect()
    }
}

/// What a connection needs, and what the scripts of the read model and of presence do. Both programs read, and put right what
/// they find wrong.
const COMMANDS: [&str; 15] = [
    "+@connection",
    "-@dangerous",
    "+eval",
    "+evalsha",
    "+script|load",
    "+hget",
    "+hmget",
    "+hgetall",
    "+hset",
    "+hdel",
    "+expire",
    "+pexpire",
    "+del",
    "+set",
    "+time",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_worker_may_declare_and_publish_what_is_the_applications() {
        let service = Program::Service.permissions("gavel");
        assert!(![&service.configure, &service.write].iter().any(|right| right.contains("gavel")), "{service:?}");
        assert!(!service.read.contains(r"gavel\..*"), "{service:?}");
        assert!(Program::Worker.permissions("gavel").write.contains(r"gavel\..*"));
    }

    #[test]
    fn an_account_of_redis_has_one_prefix_and_no_dangerous_command() {
        let rules = Program::Service.acl("gavel", "secret");
        assert!(rules.starts_with(&["reset", "on", ">secret", "~gavel:*", "resetchannels"].map(str::to_owned)));
        for dangerous in ["+@all", "~*", "+keys", "+flushall", "+config", "+debug", "nopass"] {
            assert!(!rules.iter().any(|rule| rule == dangerous), "{dangerous}");
        }
    }
}
