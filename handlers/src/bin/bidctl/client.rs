//! Calls to bid-service.
use crate::settings::Settings;
use anyhow::{Context, anyhow};
use gavel_runtime::{ids, invocation::CORRELATION_HEADER};
use poem_grpc::{ClientConfig, Code, Request, Status};

/// What every client of ours is built with.
pub(crate) fn config(settings: &Settings) -> anyhow::Result<ClientConfig> {
    let uri = settings.url.as_str();
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

/// What a failed call tells its user.
pub(crate) fn explained(settings: &Settings, status: &Status) -> anyhow::Error {
    let message = status.message().unwrap_or("no message");
    match status.code() {
        Code::FailedPrecondition => anyhow!("refused: {message}"),
        Code::Internal if message.contains("onnect") => {
            let hint = if settings.in_checkout { "" } else { "; there is no .gavel/dev.env here or above" };
            anyhow!(
                "{} does not answer ({message}); is bid-service running? `cargo xtask up` starts one{hint}",
                settings.url
            )
        }
        code => anyhow!("{code:?}: {message}"),
    }
}
