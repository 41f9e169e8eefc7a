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
    /// Its user and password at Redis, as they stand in a URL.
    pub redis_user: String,
}

/// Makes the accounts of both programs in the vhost and over the key prefix of that name.
pub async fn make(servers: &Servers, name: &str) -> [Account; 2] {
    let mut accounts = Vec::new();
    for program in Program::ALL {
        let user = format!("{}_{name}", program.account());
        user_of_broker(servers, program, name, &user, name).await;
        set_user(servers, &user, &program.acl(name, name)).await;
        let server = host_of(&servers.amqp);
        accounts.push(Account {
            amqp_url: format!("amqp://{user}:{name}@{server}/{name}"),
            redis_user: format!("{user}:{name}"),
        });
    }
    accounts.try_into().expect("two programs")
}

/// A second account for each at RabbitMQ, and a second password for each at Redis, beside the first.
pub async fn second(servers: &Servers, name: &str) -> [Account; 2] {
    let mut accounts = Vec::new();
    for program in Program::ALL {
        let first = format!("{}_{name}", program.account());
        let user = format!("{first}_2");
        user_of_broker(servers, program, name, &user, SECOND).await;
        set_user(servers, &first, &[format!(">{SECOND}")]).await;
        accounts.push(Account {
            amqp_url: format!("amqp://{user}:{SECOND}@{}/{name}", host_of(&servers.amqp)),
            redis_user: format!("{first}:{SECOND}"),
        });
    }
    accounts.try_into().expect("two programs")
}

/// The end of the first ones.
pub async fn end_first(servers: &Servers, name: &str) {
    for program in Program::ALL {
        let user = format!("{}_{name}", program.account());
        let url = format!("{}/api/users/{user}", servers.rabbitmq_api);
        let ended = Client::new().delete(&url).send().await.expect("RabbitMQ's API answers");
        assert!(ended.status().is_success(), "RabbitMQ refuses {url}: {}", ended.status());
        set_user(servers, &user, &[format!("<{name}")]).await;
    }
}

async fn user_of_broker(servers: &Servers, program: Program, vhost: &str, user: &str, password: &str) {
    let rights = program.permissions("gavel");
    let rights = json!({ "configure": rights.configure, "write": rights.write, "read": rights.read });
    put(&format!("{}/api/users/{user}", servers.rabbitmq_api), &json!({ "password": password, "tags": "" })).await;
    put(&format!("{}/api/permissions/{vhost}/{user}", servers.rabbitmq_api), &rights).await;
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
