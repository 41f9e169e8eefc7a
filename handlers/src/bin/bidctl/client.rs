//! Calls to bid-service.
use crate::settings::Settings;
use anyhow::{Context, anyhow};
use gavel_runtime::{ids, invocation::CORRELATION_HEADER};
use poem_grpc::{ClientConfig, Code, Request, Status};
use std::{error::Error, fmt};

/// What every client of ours is built with.
pub(crate) fn config(uri: &str) -> anyhow::Result<ClientConfig> {
    ClientConfig::builder().uri(uri).build().with_context(|| format!("{uri:?} is no URL of a service"))
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

/// A call that the service has answered with an error.
#[derive(Debug)]
pub(crate) struct Refused {
    /// gRPC's, as in `failed_precondition`.
    pub(crate) code: String,
    message: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = if self.code == "failed_precondition" { "refused" } else { &self.code };
        write!(f, "{code}: {}", self.message)
    }
}

impl Error for Refused {}

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

/// What a failed call tells its user.
pub(crate) fn explained(settings: &Settings, status: &Status) -> anyhow::Error {
    explained_of(settings, &settings.url, status)
}

/// As [`explained`], of the service at `url`.
pub(crate) fn explained_of(settings: &Settings, url: &str, status: &Status) -> anyhow::Error {
    let message = status.message().unwrap_or("no message");
    match status.code() {
        Code::Internal if message.contains("onnect") => {
            let hint = if settings.in_checkout { "" } else { "; there is no .gavel/dev.env here or above" };
            anyhow!("{url} does not answer ({message}); is bid-service running? `cargo xtask up` starts one{hint}")
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
}
