//! Calls to bid-service.
use crate::bidctl::{refused::Refused, settings::Settings};
use anyhow::{Context, anyhow, ensure};
use gavel_runtime::{ids, invocation::CORRELATION_HEADER, metadata::REPLAYED, tls};
use poem_grpc::{ClientConfig, Code, Request, Response, Status};

/// Returns what every client of the public's address is built with.
pub(crate) fn config(settings: &Settings) -> anyhow::Result<ClientConfig> {
    config_of(settings, &settings.url)
}

/// As [`config`], of the service at `url`.
pub(crate) fn config_of(settings: &Settings, url: &str) -> anyhow::Result<ClientConfig> {
    check_url(url)?;
    let mut client = ClientConfig::builder().uri(url);
    let is_https = url.to_ascii_lowercase().starts_with("https://");
    // A file that can't be read is said also where it would not be needed; authorities are read only where they are.
    if is_https || settings.cacert.is_some() {
        let tls = tls::client_config(settings.cacert.as_deref())?;
        if is_https {
            client = client.tls_config(tls);
        }
    }
    client.build().with_context(|| format!("{url:?} is no URL of a service"))
}

/// What asks processes by plain HTTP how they are.
pub(crate) fn http(settings: &Settings) -> anyhow::Result<reqwest::Client> {
    let tls = tls::client_config(settings.cacert.as_deref())?;
    Ok(reqwest::Client::builder().use_preconfigured_tls(tls).build()?)
}

/// Refuses what is no URL of a service: it would be taken for one, and fail in words of a library.
pub(crate) fn check_url(url: &str) -> anyhow::Result<()> {
    let parsed = reqwest::Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    let is_bare = parsed.is_some_and(|url| url.path() == "/" && url.query().is_none() && url.username().is_empty());
    ensure!(is_bare, "{url:?} is no URL of a service; allowed: http://HOST:PORT or https://HOST:PORT");
    Ok(())
}

/// A request with the caller's token and a correlation id of its own.
pub(crate) fn request<T>(message: T, token: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(CORRELATION_HEADER, ids::random().to_string());
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}"));
    }
    request
}

/// Returns whether the reply is the one that the same call was given before.
pub(crate) fn is_replayed<T>(response: &Response<T>) -> bool {
    response.metadata().get(REPLAYED.as_str()).is_some()
}

fn name_of(code: Code) -> String {
    let words = format!("{code:?}");
    let mut name = String::new();
    for (place, letter) in words.chars().enumerate() {
        if letter.is_ascii_uppercase() && place > 0 {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

/// Returns whether nobody answered as a service of ours would.
pub(crate) fn is_unanswered(status: &Status) -> bool {
    let message = status.message().unwrap_or_default();
    status.code() == Code::Internal
        && ["onnect", "client error", "invalid http status"].iter().any(|said| message.contains(said))
}

/// Returns what a failed call tells its user.
pub(crate) fn explained(settings: &Settings, status: &Status) -> anyhow::Error {
    explained_of(settings, &settings.url, status)
}

/// As [`explained`], of the service at `url`.
pub(crate) fn explained_of(settings: &Settings, url: &str, status: &Status) -> anyhow::Error {
    let message = status.message().unwrap_or("no message");
    match status.code() {
        Code::Internal if is_unanswered(status) => {
            let is_https = url.to_ascii_lowercase().starts_with("https://");
            let trust =
                if is_https { " Or its certificate is not trusted: --cacert names who vouches for it." } else { "" };
            let start = if settings.in_checkout {
                "`cargo xtask up` starts one."
            } else {
                "--url or GAVEL_URL says where; what `cargo xtask up` starts is found inside its checkout."
            };
            anyhow!(
                "{url} does not answer as a service of Gavel ({message}). Is bid-service running there? {start}{trust}"
            )
        }
        code => Refused { code: name_of(code), message: message.to_owned() }.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_the_names_that_scripts_know() {
        assert_eq!(name_of(Code::FailedPrecondition), "failed_precondition");
        assert_eq!(name_of(Code::NotFound), "not_found");
        assert_eq!(name_of(Code::Internal), "internal");
    }

    #[test]
    fn what_is_no_url_of_a_service_is_named() {
        for good in ["http://127.0.0.1:8080", "https://gavel.example", "http://[::1]:80/"] {
            assert!(check_url(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "127.0.0.1:8080",
            "localhost:8080",
            "ftp://x",
            "http://",
            "http://x/api",
            "http://u:p@x",
            "http://x?y",
            "\u{202e}",
        ] {
            assert!(check_url(bad).unwrap_err().to_string().contains("allowed"), "{bad}");
        }
    }
}
