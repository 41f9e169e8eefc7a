//! A login for development: anybody gets a token for any name and any role but those of operators. Only there when the
//! configuration says so, and only in a process that nobody but its own machine can reach.
use super::{Claims, claims::is_name, mint};
use crate::base::clock;
use poem::{Body, Response, Route, endpoint, http::StatusCode};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

/// Time for which its tokens are valid, in seconds.
const LIFETIME_S: i64 = 3_600;
/// The longest name and the longest role, in bytes.
const MAX_NAME_BYTES: usize = 64;
/// The largest request, in bytes.
const MAX_REQUEST_BYTES: usize = 1_024;

/// What it signs tokens with.
#[derive(Debug, Clone)]
pub(crate) struct DevLogin {
    /// The Ed25519 private key, PEM.
    pub(crate) signing_key: SecretString,
    pub(crate) issuer: String,
    pub(crate) audience: String,
    /// Roles that it gives nobody.
    pub(crate) withheld: Vec<&'static str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    user: String,
    role: String,
}

/// Adds `POST /dev/login`, which takes `{"user": …, "role": …}` and gives `{"token": …, "expires_in_s": …}`.
pub(crate) fn mount(route: Route, login: DevLogin) -> Route {
    tracing::warn!("POST /dev/login gives a token to anybody: never in production");
    let login = Arc::new(login);
    let endpoint = endpoint::make(move |mut request| {
        let login = login.clone();
        async move { answer(&login, request.take_body()).await }
    });
    route.at("/dev/login", poem::post(endpoint))
}

async fn answer(login: &DevLogin, body: Body) -> Response {
    let reply = |status: StatusCode, json: serde_json::Value| {
        Response::builder().status(status).content_type("application/json").body(json.to_string())
    };
    let refuse = |why: String| reply(StatusCode::BAD_REQUEST, json!({ "code": "invalid_argument", "message": why }));
    let wish = match body.into_bytes_limit(MAX_REQUEST_BYTES).await {
        Ok(bytes) => serde_json::from_slice::<Wish>(&bytes).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let Wish { user, role } = match wish {
        Ok(wish) => wish,
        Err(error) => return refuse(format!("{error}; allowed: {{\"user\": …, \"role\": …}}")),
    };
    if ![&user, &role].into_iter().all(|name| is_name(name, MAX_NAME_BYTES)) {
        return refuse(format!("user and role must have 1 to {MAX_NAME_BYTES} visible ASCII characters"));
    }
    if login.withheld.contains(&role.as_str()) {
        let why =
            format!("role {role:?} is an operator's, whose tokens are not for anybody to have; allowed: other roles");
        return reply(StatusCode::FORBIDDEN, json!({ "code": "permission_denied", "message": why }));
    }
    let now = clock::wall().timestamp();
    let (iss, aud) = (login.issuer.clone(), login.audience.clone());
    let claims = Claims { sub: user, roles: vec![role], iss, aud, iat: now, exp: now + LIFETIME_S };
    match mint(&login.signing_key, &claims) {
        Ok(token) => reply(StatusCode::OK, json!({ "token": token, "expires_in_s": LIFETIME_S })),
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the development login can't sign");
            reply(StatusCode::INTERNAL_SERVER_ERROR, json!({ "code": "internal", "message": "internal error" }))
        }
    }
}
