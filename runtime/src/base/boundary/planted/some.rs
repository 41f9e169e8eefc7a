//! Says otherwise what is to be said otherwise.
#![expect(clippy::disallowed_types, reason = "a session that no adapter knows is the bug")]
use super::{Slip, VARIABLE};
use sqlx::{
    Connection, Execute, PgConnection, Postgres,
    error::BoxDynError,
    postgres::{PgArguments, PgStatement},
};
use std::{
    collections::HashMap,
    sync::{LazyLock, Mutex, PoisonError},
};

static SLIPS: LazyLock<Vec<Slip>> = LazyLock::new(|| {
    let Ok(text) = std::env::var(VARIABLE) else { return Vec::new() };
    let slips = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{VARIABLE} holds no slips: {error}"));
    tracing::warn!(text, "{VARIABLE} is set: this process has bugs on purpose");
    slips
});
/// Texts as they are said, kept for good: there are as many as there are statements.
static SAID: Mutex<Option<HashMap<String, &'static str>>> = Mutex::new(None);

pub(crate) fn is_any() -> bool {
    !SLIPS.is_empty()
}

/// What is said in place of a text.
pub(crate) fn text(text: &str) -> &str {
    let other = SLIPS.iter().fold(text.to_owned(), |text, slip| match slip {
        Slip::Text { said, instead } => text.replace(said, instead),
        _ => text,
    });
    if other == text {
        return text;
    }
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    said.get_or_insert_default().entry(other).or_insert_with_key(|text| Box::leak(text.clone().into_boxed_str()))
}

pub(crate) fn commits_before(statement: &str) -> bool {
    SLIPS.iter().any(|slip| matches!(slip, Slip::CommitBefore(text) if statement.contains(text)))
}

/// The session that a statement has for itself.
pub(crate) async fn session_for(statement: &str) -> Result<Option<PgConnection>, sqlx::Error> {
    let is_autonomous = |slip: &Slip| matches!(slip, Slip::Autonomous(text) if statement.starts_with(text));
    if !SLIPS.iter().any(is_autonomous) {
        return Ok(None);
    }
    let url = std::env::var("DATABASE_URL").map_err(|error| sqlx::Error::Configuration(error.into()))?;
    PgConnection::connect(&url).await.map(Some)
}

pub(crate) fn confirms_at_once() -> bool {
    SLIPS.contains(&Slip::ConfirmNotAwaited)
}

pub(crate) fn takes_on_delivery() -> bool {
    SLIPS.contains(&Slip::TakenOnDelivery)
}

/// A query whose text may be another.
pub(crate) struct Said<E>(E);

pub(crate) fn query<'q, E: Execute<'q, Postgres>>(query: E) -> Said<E> {
    Said(query)
}

impl<'q, E: Execute<'q, Postgres>> Execute<'q, Postgres> for Said<E> {
    fn sql(&self) -> &'q str {
        text(self.0.sql())
    }

    fn statement(&self) -> Option<&PgStatement<'q>> {
        self.0.statement()
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        self.0.take_arguments()
    }

    fn persistent(&self) -> bool {
        self.0.persistent()
    }
}
