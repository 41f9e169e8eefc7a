//! The accounts that a test's processes have at PostgreSQL, RabbitMQ and Redis: with the rights that they have
//! anywhere, and no more.
use crate::servers::{Servers, host_of, variable};
use gavel_accounts::{Program, postgres::Role};
use reqwest::Client;
use serde_json::{Value, json};

/// The password of whoever comes second.
const SECOND: &str = "another";

/// A database of this run's server, as a role reaches it.
pub fn database_url(servers: &Servers, role: Role, database: &str) -> String {
    let account = role.account();
    let password = variable(&format!("GAVEL_TEST_PASSWORD_OF_{account}"));
    format!("postgres://{account}:{password}@{}/{database}", host_of(&servers.postgres))
}

/// The way a program reaches the servers of its test.
#[derive(Debug, Clone)]
pub struct Account {
    /// The vhost.
    pub amqp_url: String,
    /// The server, where there is only one database.
    pub redis_url: String,
}

/// Makes the accounts of both programs in the vhost and over the key prefix of that name.
pub async fn make(servers: &Servers, name: &str) -> [Account; 2] {
    let of =
        async |program| account(servers, program, name, &first(program, name), name, &program.acl(name, name)).await;
    [of(Program::Service).await, of(Program::Worker).await]
}

/// A second account for each at RabbitMQ, and a second password for each at Redis, beside the first.
pub async fn second(servers: &Servers, name: &str) -> [Account; 2] {
    let rules = [format!(">{SECOND}")];
    let of = async |program| {
        let user = format!("{}_2", first(program, name));
        account(servers, program, name, &user, SECOND, &rules).await
    };
    [of(Program::Service).await, of(Program::Worker).await]
}

/// The end of the first ones.
pub async fn end_first(servers: &Servers, name: &str) {
    for program in Program::ALL {
        let user = first(program, name);
        let url = format!("{}/api/users/{user}", servers.rabbitmq_api);
        let ended = Client::new().delete(&url).send().await.expect("RabbitMQ's API answers");
        assert!(ended.status().is_success(), "RabbitMQ refuses {url}: {}", ended.status());
        set_user(servers, &user, &[format!("<{name}")]).await;
    }
}

/// What a program is called that was there first.
fn first(program: Program, name: &str) -> String {
    format!("{}_{name}", program.account())
}

/// A user at RabbitMQ with the rights of that program, and rules for its one user at Redis, both with that password.
async fn account(
    servers: &Servers,
    program: Program,
    name: &str,
    user: &str,
    password: &str,
    rules: &[String],
) -> Account {
    let rights = program.permissions("gavel");
    let rights = json!({ "configure": rights.configure, "write": rights.write, "read": rights.read });
    put(&format!("{}/api/users/{user}", servers.rabbitmq_api), &json!({ "password": password, "tags": "" })).await;
    put(&format!("{}/api/permissions/{name}/{user}", servers.rabbitmq_api), &rights).await;
    let at_redis = first(program, name);
    set_user(servers, &at_redis, rules).await;
    Account {
        amqp_url: format!("amqp://{user}:{password}@{}/{name}", host_of(&servers.amqp)),
        redis_url: format!("redis://{at_redis}:{password}@{}", host_of(&servers.redis)),
    }
}

async fn set_user(servers: &Servers, user: &str, rules: &[String]) {
    let mut acl = redis::cmd("ACL");
    acl.arg("SETUSER").arg(user).arg(rules);
    let client = redis::Client::open(servers.redis.as_str()).expect("Redis' URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("Redis answers");
    acl.query_async::<()>(&mut connection).await.expect("Redis does it");
}

async fn put(url: &str, body: &Value) {
    let made = Client::new().put(url).json(body).send().await.expect("RabbitMQ's API answers");
    assert!(made.status().is_success(), "RabbitMQ refuses {url}: {}", made.status());
}
