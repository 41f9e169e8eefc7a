//! Documents of keys as they are in the world: with keys of no use here, at servers that are down, moved, or none that
//! may be believed.
use crate::identity::{ed_jwk, is_taken, service};
use gavel_tests::{Process, System, eventually, https::Https, process::binary};
use serde_json::{Value, json};
use std::{fs, path::PathBuf};

/// Keys that other systems sign, agree or encrypt with.
fn of_no_use() -> Vec<Value> {
    let x = "hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo";
    vec![
        json!({ "kty": "OKP", "crv": "X25519", "kid": "agree", "x": x }),
        json!({ "kty": "EC", "crv": "secp256k1", "kid": "coin", "x": x, "y": x }),
        json!({ "kty": "AKP", "alg": "ML-DSA-44", "kid": "later", "pub": "AAAA" }),
        json!({ "kty": "RSA", "kid": "short", "e": "AQAB", "n": "t".repeat(171) }),
        json!({ "kty": "OKP", "crv": "Ed25519", "use": "enc", "kid": "enc", "x": x }),
    ]
}

fn document(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

async fn figure(process: &Process, name: &str) -> Option<String> {
    let metrics = process.metrics().await;
    let line = metrics.lines().find(|line| line.starts_with(name) && !line.starts_with('#'))?;
    line.rsplit(' ').next().map(ToOwned::to_owned)
}

struct File(PathBuf);

impl File {
    fn of(system: &System) -> Self {
        Self(std::env::temp_dir().join(format!("{}-keys.json", system.name())))
    }

    /// In one step, as whoever mounts secrets does it: nobody reads half of it.
    fn write(&self, keys: &[Value]) {
        let new = self.0.with_extension("new");
        fs::write(&new, document(keys)).expect("written");
        fs::rename(new, &self.0).expect("in its place");
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[tokio::test]
async fn keys_of_no_use_stop_neither_a_start_nor_the_withdrawal_of_an_old_one() {
    let system = System::new().await;
    let file = File::of(&system);
    let good = ed_jwk("good", system.public_key());
    file.write(&[of_no_use(), vec![good]].concat());
    let (process, api) = service(&system, &[("GAVEL_JWKS", &file.0.to_string_lossy())]).await;
    let token = system.token("alice", "bidder");
    assert!(is_taken(&api, &token).await);
    assert_eq!(figure(&process, "gavel_token_keys{").await.as_deref(), Some("1"));
    assert_eq!(figure(&process, "gavel_token_keys_ignored{").await.as_deref(), Some("5"));
    let named = |line: &String| line.contains("a key is passed over") && line.contains("coin");
    assert!(process.output().iter().any(named), "the log names it");

    file.write(&of_no_use());
    // A token of an unknown key makes the service look sooner than once a minute.
    let stranger = System::new().await.token("alice", "bidder");
    let is_gone = || async {
        is_taken(&api, &stranger).await;
        !is_taken(&api, &token).await
    };
    eventually("the good key is withdrawn", is_gone, |gone| *gone).await;
}

#[tokio::test]
async fn a_document_without_keys_withdraws_them_all() {
    let system = System::new().await;
    let file = File::of(&system);
    file.write(&[ed_jwk("good", system.public_key())]);
    let (_process, api) = service(&system, &[("GAVEL_JWKS", &file.0.to_string_lossy())]).await;
    let (token, stranger) = (system.token("alice", "bidder"), System::new().await.token("alice", "bidder"));
    assert!(is_taken(&api, &token).await);
    file.write(&[]);
    let is_gone = || async {
        is_taken(&api, &stranger).await;
        !is_taken(&api, &token).await
    };
    eventually("it is withdrawn", is_gone, |gone| *gone).await;
}

/// Returns how a service fails to start with these keys.
async fn refused(system: &System, provider: &Https, url: &str) -> String {
    let ca = provider.certificate.to_string_lossy().into_owned();
    let variables = [("GAVEL_JWT_PUBLIC_KEY", ""), ("GAVEL_JWKS", url), ("GAVEL_JWKS_CA_FILE", ca.as_str())];
    let mut process = Process::start(&binary("bid-service"), &[], &system.service_variables(&variables));
    assert!(!process.ended().await.success(), "it has started");
    process.output().join("\n")
}

#[tokio::test]
async fn a_server_of_keys_that_is_down_stops_no_start_where_its_keys_are_known() {
    let system = System::new().await;
    let provider = Https::serve(document(&[ed_jwk("good", system.public_key())])).await;
    provider.is_down(true);
    let said = refused(&system, &provider, &provider.url).await;
    assert!(said.contains(&provider.url), "nothing is known yet, and it says where it looked: {said}");
    provider.is_down(false);
    let ca = provider.certificate.to_string_lossy().into_owned();
    let variables = [("GAVEL_JWKS", provider.url.as_str()), ("GAVEL_JWKS_CA_FILE", ca.as_str())];
    let (first, api) = service(&system, &variables).await;
    let token = system.token("alice", "bidder");
    assert!(is_taken(&api, &token).await);
    drop(first);
    provider.is_down(true);
    let (_second, api) = service(&system, &variables).await;
    assert!(is_taken(&api, &token).await, "by the keys of the last time");
}

#[tokio::test]
async fn a_server_of_keys_leads_to_no_other() {
    let (system, forger) = (System::new().await, System::new().await);
    let provider = Https::serve(document(&[ed_jwk("good", system.public_key())])).await;
    let other = Https::serve(document(&[ed_jwk("good", forger.public_key())])).await;
    let moved = provider.url.replace("/keys.json", "/moved");
    provider.redirects_to(&other.url);
    let said = refused(&system, &provider, &moved).await;
    assert!(said.contains("another origin"), "{said}");
    provider.redirects_to("/keys.json");
    let ca = provider.certificate.to_string_lossy().into_owned();
    let (_process, api) = service(&system, &[("GAVEL_JWKS", &moved), ("GAVEL_JWKS_CA_FILE", &ca)]).await;
    assert!(is_taken(&api, &system.token("alice", "bidder")).await, "to another path of its own it may lead");
}

#[tokio::test]
async fn a_server_of_keys_whose_certificate_nobody_vouches_for_is_not_believed() {
    let system = System::new().await;
    let provider = Https::serve(document(&[ed_jwk("good", system.public_key())])).await;
    let stranger = Https::serve(String::new()).await;
    let said = refused(&system, &stranger, &provider.url).await;
    assert!(said.contains(&provider.url), "{said}");
}
