//! Clients that others have written, in other languages, against one table of scenarios: directly and through both
//! gateways.
use chrono::{TimeDelta, Utc};
use gavel_gateway::Kind;
use gavel_proto::DESCRIPTORS;
use gavel_tests::{RunningGateway, System, claims, servers::variable};
use prost::Message;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};
use tokio::process::Command;

fn interop() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("interop")
}

#[tokio::test]
async fn outside_clients_see_what_the_table_says() {
    by_all(None).await;
}

#[tokio::test]
async fn outside_clients_see_the_same_through_nginx() {
    by_all(Some(Kind::Nginx)).await;
}

#[tokio::test]
async fn outside_clients_see_the_same_through_haproxy() {
    by_all(Some(Kind::Haproxy)).await;
}

async fn by_all(through: Option<Kind>) {
    let system = System::new().await;
    let (service, api) = system.service().await;
    let seller = api.with_token(system.token("sam", "seller"));
    let locked = seller.create("A locked lamp", Utc::now() + TimeDelta::hours(1)).await.item_id;
    let mut holder = system.db.begin().await.expect("a transaction");
    let lock = sqlx::query("SELECT item_id FROM items WHERE item_id = $1::uuid FOR UPDATE").bind(&locked);
    lock.execute(&mut *holder).await.expect("locked");
    let address = service.address().await;
    let gateway = match through {
        Some(kind) => Some(RunningGateway::open(kind, &[&service]).await),
        None => None,
    };
    let certificate = gateway.as_ref().map(|gateway| gateway.certificate.clone());
    let given = json!({
        "url": gateway.as_ref().map_or_else(|| format!("http://{address}"), |gateway| gateway.url.clone()),
        "opsUrl": format!("http://{}", service.ops_address().await),
        "prefix": if gateway.is_some() { "/api" } else { "" },
        "ca": certificate,
        "caText": certificate.as_ref().map(|path| fs::read_to_string(path).expect("a certificate")),
        "tokens": {
            "bidder": system.token("alice", "bidder"),
            "seller": system.token("sam", "seller"),
            "ops": system.token("olga", "ops"),
            "expired": expired(&system),
        },
        "names": { "locked": locked, "soon": (Utc::now() + TimeDelta::hours(1)).format("%Y-%m-%dT%H:%M:%SZ").to_string() },
    });
    let python = variable("GAVEL_TEST_PYTHON");
    let mut wrong = Vec::new();
    for (program, client) in
        [("node", "connect.mjs"), ("node", "grpcjs.mjs"), ("node", "bufcurl.mjs"), (python.as_str(), "grpcio.py")]
    {
        let mut command = Command::new(program);
        command.arg(interop().join(client)).env("GAVEL_INTEROP", given.to_string()).kill_on_drop(true);
        if let Some(certificate) = &certificate {
            command.env("NODE_EXTRA_CA_CERTS", certificate);
        }
        let output = command.output().await.unwrap_or_else(|error| panic!("{program} {client} can't be run: {error}"));
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        eprintln!("{said}");
        if !output.status.success() {
            wrong.push(client);
        }
    }
    assert!(wrong.is_empty(), "not as the table says: {wrong:?}");
}

fn expired(system: &System) -> String {
    system.sign(&claims("alice", &["bidder"], -60))
}

#[test]
fn the_table_asks_every_method_of_the_api() {
    let table = fs::read_to_string(interop().join("scenarios.json")).expect("the table");
    let table: Value = serde_json::from_str(&table).expect("JSON");
    let asked = table["scenarios"].as_array().expect("scenarios").iter();
    let asked: BTreeSet<_> = asked.map(|scenario| scenario["method"].as_str().expect("a method").to_owned()).collect();
    let contracts = prost_types::FileDescriptorSet::decode(DESCRIPTORS).expect("the contracts");
    let services = contracts.file.iter().filter(|file| file.package() == "gavel.v1").flat_map(|file| &file.service);
    let methods = services.flat_map(|service| {
        service.method.iter().map(|method| format!("{}/{}", service.name(), method.name())).collect::<Vec<_>>()
    });
    assert_eq!(asked, methods.collect());
}
