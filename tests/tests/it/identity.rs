//! Whose tokens are taken: by which keys, from where, and for how long after a key is gone.
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use chrono::Utc;
use gavel_proto::v1;
use gavel_tests::{Api, Failure, Process, System, eventually, https::Https};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use poem_grpc::Code;
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};
use uuid::Uuid;

/// For these tests alone, as is the key it belongs to: `openssl genpkey -algorithm RSA`.
const RSA_KEY: &str = include_str!("../../keys/rs256-signing-key.pem");
const RSA_PUBLIC_KEY: &str = include_str!("../../keys/rs256-public-key.pem");
/// Its modulus, as a JWK has it.
const RSA_MODULUS: &str = "polf7r9kwIh_83p0gkqRFIeI1xX3fJROmXgbWEm_OLUWWZrHQIcZ5AopEYKAt7eT7hJ7TdPJljxz2V0nIDJZyl5WtIozWEgnagM16MprFKhN4wuaO5P7jj3S28ZpWteRX4g1YhRW_401WNU9g8NkqSCRFnRXtJyZWnCHDZzMWwn_G_YVkHdQO34-Q7XKncrvw0dn7Im7kgEa0dWTpnOfgNAwcXDgcwKkyG92Y1hezo6tLpn-44YmCiIJNnqO8ccN_EbEvLx3uQLzANjGpSCy3SeQwFldbQ1H66SUr6nme4kw--vd7HlVke_CDcS30pS1cRGi1wQ65h5bwW8N00lsZQ";

fn claims() -> Value {
    let now = Utc::now().timestamp();
    json!({ "sub": "alice", "role": "bidder", "iss": "gavel", "aud": "gavel", "iat": now, "exp": now + 600 })
}

fn rs256(kid: Option<&str>, claims: &Value) -> String {
    let header = Header { kid: kid.map(ToOwned::to_owned), ..Header::new(Algorithm::RS256) };
    let key = EncodingKey::from_rsa_pem(RSA_KEY.as_bytes()).expect("a key");
    jsonwebtoken::encode(&header, claims, &key).expect("signed")
}

fn rsa_jwk(kid: &str) -> Value {
    json!({ "kty": "RSA", "alg": "RS256", "use": "sig", "kid": kid, "n": RSA_MODULUS, "e": "AQAB" })
}

/// An Ed25519 public key ends with its 32 bytes.
pub(crate) fn ed_jwk(kid: &str, pem: &str) -> Value {
    let base64: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(base64).expect("PEM");
    json!({ "kty": "OKP", "crv": "Ed25519", "kid": kid, "x": URL_SAFE_NO_PAD.encode(&der[der.len() - 32..]) })
}

pub(crate) async fn is_taken(api: &Api, token: &str) -> bool {
    let read = api.with_token(token.to_owned()).items(v1::ListItemsRequest::default()).await;
    match read {
        Ok(_) => true,
        Err(failure) => {
            assert_eq!(failure.code, Code::Unauthenticated, "{failure:?}");
            false
        }
    }
}

pub(crate) async fn service(system: &System, variables: &[(&str, &str)]) -> (Process, Api) {
    let variables: Vec<_> = [("GAVEL_JWT_PUBLIC_KEY", "")].into_iter().chain(variables.iter().copied()).collect();
    system.service_with(&variables).await
}

#[tokio::test]
async fn keys_are_rotated_in_a_file_while_the_service_runs() {
    let (system, other) = (System::new().await, System::new().await);
    let path = std::env::temp_dir().join(format!("{}-jwks.json", system.name()));
    let write = |keys: &[Value]| std::fs::write(&path, json!({ "keys": keys }).to_string()).expect("written");
    let (old, new) = (ed_jwk("old", system.public_key()), ed_jwk("new", other.public_key()));
    let unused = json!({ "kty": "EC", "crv": "P-256", "kid": "else", "x": "AA", "y": "AA" });
    write(&[old.clone(), unused]);
    let (_service, api) = service(&system, &[("GAVEL_JWKS", &path.to_string_lossy())]).await;
    let (by_old, by_new) = (system.token("alice", "bidder"), other.token("alice", "bidder"));
    assert!(is_taken(&api, &by_old).await);
    assert!(!is_taken(&api, &by_new).await, "its key is not there yet");

    write(&[old, new.clone()]);
    eventually("the new key is taken", || is_taken(&api, &by_new), |taken| *taken).await;
    assert!(is_taken(&api, &by_old).await, "both are for a while");

    write(&[new]);
    let stranger = rs256(Some("nobody's"), &claims());
    let old_is_gone = || async {
        // A token of an unknown key makes the service look sooner than once a minute.
        is_taken(&api, &stranger).await;
        !is_taken(&api, &by_old).await
    };
    eventually("the old key is gone, its remembered tokens too", old_is_gone, |gone| *gone).await;
    assert!(is_taken(&api, &by_new).await);

    std::fs::write(&path, "{").expect("written");
    is_taken(&api, &stranger).await;
    assert!(is_taken(&api, &by_new).await, "what can't be read changes nothing");
    std::fs::remove_file(&path).expect("removed");
}

#[tokio::test]
async fn keys_come_from_a_url_and_rsa_tokens_are_taken_by_their_key_id() {
    let system = System::new().await;
    let provider = Https::serve(json!({ "keys": [rsa_jwk("2026")] }).to_string()).await;
    let ca = provider.certificate.to_string_lossy();
    let (_service, api) = service(&system, &[("GAVEL_JWKS", &provider.url), ("GAVEL_JWKS_CA_FILE", &ca)]).await;
    assert!(is_taken(&api, &rs256(Some("2026"), &claims())).await);
    assert!(is_taken(&api, &rs256(None, &claims())).await, "a token without a key id may be any key's");
    assert!(!is_taken(&api, &rs256(Some("2027"), &claims())).await, "one with another id is not");
    assert!(!is_taken(&api, &system.token("alice", "bidder")).await, "there is no Ed25519 key");
    provider.change(json!({ "keys": [rsa_jwk("2027")] }).to_string());
    let renamed = || async { is_taken(&api, &rs256(Some("2027"), &claims())).await };
    eventually("the new name is known", renamed, |taken| *taken).await;
}

#[tokio::test]
async fn a_key_is_used_with_its_own_algorithm_and_a_token_within_its_times() {
    let system = System::new().await;
    let both = format!("{}\n{RSA_PUBLIC_KEY}", system.public_key());
    let (_service, api) = system.service_with(&[("GAVEL_JWT_PUBLIC_KEY", &both)]).await;
    assert!(is_taken(&api, &system.token("alice", "bidder")).await);
    assert!(is_taken(&api, &rs256(None, &claims())).await);
    let mut several = claims();
    several["aud"] = json!(["others", "gavel"]);
    assert!(is_taken(&api, &rs256(None, &several)).await, "RFC 7519, 4.1.3: one or many");
    let public = EncodingKey::from_secret(RSA_PUBLIC_KEY.as_bytes());
    let confused = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims(), &public).expect("signed");
    assert!(!is_taken(&api, &confused).await, "a public key is nobody's secret");
    let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
    let unsigned = format!("{}.{}.", part(json!({ "alg": "none", "typ": "JWT" })), part(claims()));
    assert!(!is_taken(&api, &unsigned).await);
    let mut early = claims();
    early["nbf"] = json!(Utc::now().timestamp() + 60);
    assert!(!is_taken(&api, &rs256(None, &early)).await, "not yet");
}

#[tokio::test]
async fn there_is_a_development_login_only_where_it_is_asked_for() {
    let system = System::new().await;
    let login = async |process: &Process, wish: Value| -> Response {
        let url = format!("http://{}/dev/login", process.address().await);
        Client::new().post(url).body(wish.to_string()).send().await.expect("answered")
    };
    let alice = json!({ "user": "alice", "role": "bidder" });
    let olga = json!({ "user": "olga", "role": "ops" });
    let (plain, _) = system.service().await;
    assert_eq!(login(&plain, alice.clone()).await.status(), 404);
    let variables = [("GAVEL_DEV_LOGIN", "true"), ("GAVEL_JWT_SIGNING_KEY", system.signing_key())];
    let (service, api) = system.service_with(&variables).await;
    let reply: Value = login(&service, alice).await.json().await.expect("JSON");
    assert!(is_taken(&api, reply["token"].as_str().expect("a token")).await);
    assert_eq!(login(&service, olga).await.status(), 403, "nobody becomes an operator by asking");
    assert_eq!(login(&service, json!({ "user": "", "role": "bidder" })).await.status(), 400);
    assert_eq!(login(&service, json!({ "name": "alice" })).await.status(), 400);
}

#[tokio::test]
async fn a_caller_who_is_too_fast_is_told_when_to_try_again() {
    let system = System::new().await;
    let (_service, api) = system.service_with(&[("GAVEL_CALLS_PER_CALLER", "2")]).await;
    let (alice, bob) = (system.token("alice", "bidder"), system.token("bob", "bidder"));
    let nowhere = Uuid::nil();
    let refused = too_fast(async || fruitless(&api, &alice, nowhere).await).await;
    assert!(refused.message.contains("2 calls a second from one caller"), "{refused:?}");
    assert_eq!(fruitless(&api, &bob, nowhere).await.code, Code::NotFound, "others have a pace of their own");
}

#[tokio::test]
async fn an_item_that_is_bid_on_too_fast_says_when_to_try_again_whoever_bids() {
    let system = System::new().await;
    let (_service, api) = system.service_with(&[("GAVEL_CALLS_PER_KEY", "2")]).await;
    let (hot, calm) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let bidders: Vec<_> = (0..8).map(|n| system.token(&format!("bidder-{n}"), "bidder")).collect();
    let mut turn = bidders.iter().cycle();
    let refused = too_fast(async || fruitless(&api, turn.next().expect("a bidder"), hot).await).await;
    assert!(refused.message.contains("2 calls a second about the same"), "{refused:?}");
    assert_eq!(fruitless(&api, &bidders[0], calm).await.code, Code::NotFound, "other items have a pace of their own");
}

/// A bid on an item that does not exist.
async fn fruitless(api: &Api, token: &str, item: Uuid) -> Failure {
    api.with_token(token.to_owned()).bid(&item.to_string(), 1_000).await.expect_err("no such item")
}

/// Asks until it is told to be slower, and gives that answer. Twice as many as in a second may come at once; these come
/// faster than that lets in more.
async fn too_fast(mut ask: impl AsyncFnMut() -> Failure) -> Failure {
    for _ in 0..40 {
        let failure = ask().await;
        if failure.code == Code::ResourceExhausted {
            let retry = |detail: &prost_types::Any| detail.type_url == "type.googleapis.com/google.rpc.RetryInfo";
            assert!(failure.details.iter().any(retry), "{failure:?}");
            return failure;
        }
        assert_eq!(failure.code, Code::NotFound, "{failure:?}");
    }
    panic!("forty bids in a row are too fast");
}

#[tokio::test]
async fn web_pages_may_call_from_the_origins_that_are_named_and_from_no_other() {
    let system = System::new().await;
    let (service, _) =
        system.service_with(&[("GAVEL_CORS_ORIGINS", "https://gavel.example,http://localhost:5173")]).await;
    let url = format!("http://{}/gavel.v1.ItemService/ListItems", service.address().await);
    let preflight = async |origin: &str| {
        let request = Client::new().request(Method::OPTIONS, &url).header("origin", origin);
        let request = request.header("access-control-request-method", "POST");
        request.header("access-control-request-headers", "content-type,authorization").send().await.expect("answered")
    };
    let allowed = preflight("https://gavel.example").await;
    assert!(allowed.status().is_success());
    assert_eq!(allowed.headers()["access-control-allow-origin"], "https://gavel.example");
    let stranger = preflight("https://evil.example").await;
    assert!(stranger.headers().get("access-control-allow-origin").is_none(), "{:?}", stranger.headers());
    let call = Client::new().post(&url).header("origin", "http://localhost:5173");
    let call = call.header("content-type", "application/json").body("{}").send().await.expect("answered");
    let exposed = call.headers()["access-control-expose-headers"].to_str().expect("text");
    assert!(exposed.contains("grpc-status-details-bin"), "{exposed}");
    // A page that the same address served needs no leave; another does, whatever it asks for.
    let own = format!("http://{}", service.address().await);
    for (origin, status) in [(own.as_str(), 200), ("https://evil.example", 403)] {
        let call = Client::new().post(&url).header("origin", origin).header("content-type", "application/json");
        assert_eq!(call.body("{}").send().await.expect("answered").status(), status, "{origin}");
    }
}
