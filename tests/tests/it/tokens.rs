//! Tokens that say too much, too little, or what nobody should read in a log.
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{TimeDelta, Utc};
use gavel_proto::v1;
use gavel_tests::{System, claims, frame};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use poem_grpc::Code;
use reqwest::Client;
use serde_json::{Value, json};

/// Of any type, and with any claims.
fn signed(system: &System, kind: Option<&str>, claims: &Value) -> String {
    let header = Header { typ: kind.map(ToOwned::to_owned), ..Header::new(Algorithm::EdDSA) };
    let key = EncodingKey::from_ed_pem(system.signing_key().as_bytes()).expect("a key");
    jsonwebtoken::encode(&header, claims, &key).expect("signed")
}

#[tokio::test]
async fn a_token_for_too_long_of_another_type_or_with_a_name_that_is_none_lets_nobody_in() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let good = serde_json::to_value(claims("alice", &["bidder"], 600)).expect("JSON");
    let with = |name: &str, value: Value| {
        let mut changed = good.clone();
        changed[name] = value;
        changed
    };
    let now = Utc::now().timestamp();
    for (what, token, words) in [
        ("for two days", signed(&system, Some("JWT"), &with("exp", json!(now + 2 * 86_400))), "86400"),
        ("for ever", signed(&system, Some("JWT"), &with("exp", json!(9_007_199_254_740_991_i64))), "86400"),
        ("of another type", signed(&system, Some("dpop+jwt"), &good), "type"),
        ("with NUL", signed(&system, None, &with("sub", json!("a\u{0}b"))), "subject"),
        ("with a line break", signed(&system, None, &with("sub", json!("alice\nINFO all is well"))), "subject"),
        ("with a bidi mark", signed(&system, None, &with("sub", json!("\u{202e}ecila"))), "subject"),
        ("without roles", signed(&system, None, &with("roles", json!([]))), "role"),
    ] {
        let caller = api.with_token(token);
        let refused = caller.stats("").await.expect_err(what);
        assert_eq!(refused.code, Code::Unauthenticated, "{what}: {refused:?}");
        assert!(refused.message.contains(words), "{what}: {}", refused.message);
        let reason = refused.details.iter().find(|detail| detail.type_url.ends_with("google.rpc.ErrorInfo"));
        assert!(reason.is_some_and(|info| contains(&info.value, b"TOKEN_INVALID")), "{what}: {refused:?}");
        // It would have been answered without.
        let public = caller.items(v1::ListItemsRequest::default()).await.expect_err(what);
        assert!(public.message.contains("needs no token"), "{what}: {}", public.message);
    }
    for kind in [None, Some("JWT"), Some("at+jwt")] {
        api.with_token(signed(&system, kind, &good)).stats("").await.expect("it is good");
    }
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

#[tokio::test]
async fn one_person_may_sell_and_bid() {
    let system = System::new().await;
    let (_service, api) = system.service().await;
    let both = api.with_token(system.sign(&claims("sam", &["seller", "bidder"], 600)));
    let own = both.create("A lamp", Utc::now() + TimeDelta::hours(1)).await.item_id;
    let refused = both.bid(&own, 1_000).await.expect_err("one's own item");
    assert_eq!(refused.code, Code::FailedPrecondition, "{refused:?}");
    let other = api.with_token(system.token("sue", "seller"));
    let item = other.create("A chair", Utc::now() + TimeDelta::hours(1)).await.item_id;
    both.bid(&item, 1_000).await.expect("accepted");
}

#[tokio::test]
async fn a_stream_that_ends_with_its_token_says_so_in_a_way_that_programs_understand() {
    let system = System::new().await;
    let (service, _) = system.service().await;
    // Clocks may differ by five seconds: it holds for another two.
    let token = system.sign(&claims("alice", &["bidder"], -3));
    let url = format!("http://{}/gavel.v1.UserService/WatchUser", service.address().await);
    let request = Client::new().post(url).header("content-type", "application/connect+json");
    let request = request.header("authorization", format!("Bearer {token}")).body(frame(0, b"{}"));
    let body = request.send().await.expect("answered").bytes().await.expect("read to its end");
    let text = String::from_utf8_lossy(&body);
    let end = &text[text.rfind("{\"error\"").expect("an error at the end")..];
    let end: Value = serde_json::from_str(end).expect("JSON");
    assert_eq!(end["error"]["code"], "unauthenticated", "{end}");
    let info = &end["error"]["details"][0];
    assert_eq!(info["type"], "google.rpc.ErrorInfo", "{end}");
    let value = info["value"].as_str().expect("base64").trim_end_matches('=');
    let value = URL_SAFE_NO_PAD.decode(value.replace('+', "-").replace('/', "_")).expect("base64");
    assert!(contains(&value, b"TOKEN_EXPIRED") && contains(&value, b"gavel.runtime"), "{value:?}");
}
