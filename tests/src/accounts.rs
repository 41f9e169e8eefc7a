//! The accounts that a test's processes have at PostgreSQL, RabbitMQ and Redis: with the rights that they have
//! anywhere, and no more.
use crate::servers::{Servers, host_of, variable};
use gavel_accounts::{Program, postgres::Role};
use reqwest::Client;
use serde_json::{Value, json};

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
    /// Its user and password at Redis, as they stand in a URL.
    pub redis_user: String,
}

/// Makes the accounts of both programs in the vhost and over the key prefix of that name.
pub async fn make(servers: &Servers, name: &str) -> [Account; 2] {
    let mut accounts = Vec::new();
    for program in Program::ALL {
        let user = format!("{}_{name}", program.account());
        let rights = program.permissions("gavel");
        let rights = json!({ "configure": rights.configure, "write": rights.write, "read": rights.read });
        put(&format!("{}/api/users/{user}", servers.rabbitmq_api), &json!({ "password": name, "tags": "" })).await;
        put(&format!("{}/api/permissions/{name}/{user}", servers.rabbitmq_api), &rights).await;
        let mut acl = redis::cmd("ACL");
        acl.arg("SETUSER").arg(&user).arg(program.acl(name, name));
        let client = redis::Client::open(servers.redis.as_str()).expect("Redis' URL");
        let mut connection = client.get_multiplexed_async_connection().await.expect("Redis answers");
        acl.query_async::<()>(&mut connection).await.expect("Redis makes the user");
        let server = host_of(&servers.amqp);
        accounts.push(Account {
            amqp_url: format!("amqp://{user}:{name}@{server}/{name}"),
            redis_user: format!("{user}:{name}"),
        });
    }
    accounts.try_into().expect("two programs")
}

async fn put(url: &str, body: &Value) {
    let made = Client::new().put(url).json(body).send().await.expect("RabbitMQ's API answers");
    assert!(made.status().is_success(), "RabbitMQ refuses {url}: {}", made.status());
}
