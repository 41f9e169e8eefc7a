//! The accounts of Gavel's programs at PostgreSQL, RabbitMQ and Redis, each with the least rights that it needs: `cargo
//! xtask up`, Compose and every test run under them.
//!
//! The API is what strangers talk to. It hears events and reads the read model; it publishes nothing, and no queue of a
//! worker's is within its reach.
pub mod postgres;

use postgres::Role;
use rand_core::{OsRng, RngCore};
use serde_json::{Value, json};

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

/// A password for each account.
#[derive(Clone)]
pub struct Passwords {
    /// Of whoever owns everything, as `gavel`.
    pub administrator: String,
    /// Of [`Program::Service`].
    pub service: String,
    /// Of [`Program::Worker`].
    pub worker: String,
    /// Of [`Role::Migrator`].
    pub migrator: String,
    /// Of [`Role::Operator`].
    pub operator: String,
    /// Of [`Role::Reader`].
    pub reader: String,
}

impl Passwords {
    /// A program's.
    pub fn of(&self, program: Program) -> &str {
        match program {
            Program::Service => &self.service,
            Program::Worker => &self.worker,
        }
    }

    /// New ones, for all.
    pub fn random() -> Self {
        let [administrator, service, worker, migrator, operator, reader] = std::array::from_fn(|_| password());
        Self { administrator, service, worker, migrator, operator, reader }
    }

    /// Those of the roles at PostgreSQL.
    pub fn at_postgres(&self) -> [(Role, &str); 5] {
        [
            (Role::Migrator, &self.migrator),
            (Role::Service, &self.service),
            (Role::Worker, &self.worker),
            (Role::Operator, &self.operator),
            (Role::Reader, &self.reader),
        ]
    }
}

/// A new one: 128 bits, in hexadecimal digits.
pub fn password() -> String {
    format!("{:016x}{:016x}", OsRng.next_u64(), OsRng.next_u64())
}

/// Returns what RabbitMQ is told of the accounts (`load_definitions`): it reads them at every start.
pub fn rabbitmq_definitions(app: &str, vhost: &str, passwords: &Passwords) -> Value {
    let user = |name: &str, password: &str, tags: &str| json!({ "name": name, "password": password, "tags": tags });
    let permission = |name: &str, Permissions { configure, write, read }| json!({ "user": name, "vhost": vhost, "configure": configure, "write": write, "read": read });
    let all = || ".*".to_owned();
    let everything = Permissions { configure: all(), write: all(), read: all() };
    let own = |program: Program| user(program.account(), passwords.of(program), "");
    let least = |program: Program| permission(program.account(), program.permissions(app));
    json!({
        "vhosts": [{ "name": vhost }],
        "users": [user("gavel", &passwords.administrator, "administrator"), own(Program::Service), own(Program::Worker)],
        "permissions": [permission("gavel", everything), least(Program::Service), least(Program::Worker)],
    })
}

/// Returns what Redis is told of them, as its `aclfile` or within its configuration: nobody else may do anything.
pub fn redis_users(prefix: &str, passwords: &Passwords) -> String {
    let own = |program: Program| program.acl(prefix, passwords.of(program)).join(" ");
    let programs = Program::ALL.map(|program| format!("user {} {}\n", program.account(), own(program)));
    format!("user default off\nuser gavel on >{} ~* &* +@all\n{}", passwords.administrator, programs.concat())
}

/// What a connection needs, and what the scripts of the read model and of presence do. Both programs read, and put
/// right what they find wrong.
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
