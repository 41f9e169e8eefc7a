//! Where traces go, if anywhere.
use super::Env;

/// Where the spans of runs go.
#[derive(Debug, Clone)]
pub struct TraceConfig {
    /// A collector that takes OTLP over HTTP, without the path; none where nothing is traced.
    pub endpoint: Option<String>,
    /// The share of traces that is kept, from 0 to 1. A trace's id decides, so all processes keep the same ones.
    pub ratio: f64,
}

impl TraceConfig {
    /// `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER_ARG`: names and meaning are those of OpenTelemetry's
    /// specification, <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>.
    pub(super) fn from_env(env: &mut Env) -> Self {
        let endpoint = env.text("OTEL_EXPORTER_OTLP_ENDPOINT", "").trim_end_matches('/').to_owned();
        let has_host = |url: &reqwest::Url| matches!(url.scheme(), "http" | "https") && url.host().is_some();
        if !endpoint.is_empty() && !reqwest::Url::parse(&endpoint).is_ok_and(|url| has_host(&url)) {
            let allowed = "an address of a collector for OTLP over HTTP, such as http://127.0.0.1:4318";
            env.problem(format!("OTEL_EXPORTER_OTLP_ENDPOINT is {endpoint:?}; allowed: {allowed}"));
        }
        let ratio = env.optional("OTEL_TRACES_SAMPLER_ARG", "0 to 1").unwrap_or(1.0);
        if !(0.0..=1.0).contains(&ratio) {
            env.problem(format!("OTEL_TRACES_SAMPLER_ARG is {ratio}; allowed: 0 to 1"));
        }
        Self { endpoint: Some(endpoint).filter(|endpoint| !endpoint.is_empty()), ratio }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(endpoint: &str, ratio: &str) -> Result<TraceConfig, super::super::ConfigError> {
        let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint), ("OTEL_TRACES_SAMPLER_ARG", ratio)];
        let mut env = Env::new(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let config = TraceConfig::from_env(&mut env);
        env.finish().map(|()| config)
    }

    #[test]
    fn nothing_is_traced_unless_it_is_said_where_to() {
        assert_eq!(read("", "").expect("fine").endpoint, None);
        let config = read("http://collector:4318/", "0.25").expect("fine");
        assert_eq!((config.endpoint.as_deref(), config.ratio), (Some("http://collector:4318"), 0.25));
    }

    #[test]
    fn what_is_no_address_and_no_share_is_named() {
        for endpoint in ["collector:4317", "grpc://collector:4317", "http://"] {
            let error = read(endpoint, "").expect_err("no address").to_string();
            assert!(error.contains("OTEL_EXPORTER_OTLP_ENDPOINT") && error.contains("4318"), "{error}");
        }
        for ratio in ["1.1", "-0.1", "NaN", "half"] {
            let error = read("", ratio).expect_err("no share").to_string();
            assert!(error.contains("OTEL_TRACES_SAMPLER_ARG") && error.contains("0 to 1"), "{error}");
        }
    }
}
