//! The runtime without auctions: `DATABASE_URL=postgres://… cargo run -p gavel-runtime --example reminders`, on an
//! empty database. It needs neither RabbitMQ nor Redis: events wait in the outbox until there is a broker.
#![expect(clippy::disallowed_types, reason = "it looks from outside")]
mod app;

use app::Remind;
use gavel_runtime::{
    config::{Backends, Env},
    testing::Harness,
};
use sqlx::{PgPool, migrate::Migrator};
use std::time::Duration;

static MIGRATIONS: Migrator = sqlx::migrate!("examples/reminders/migrations");

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = std::env::var("DATABASE_URL")?;
    let nowhere = [("AMQP_URL", "amqp://127.0.0.1:1"), ("REDIS_URL", "redis://127.0.0.1:1")];
    let variables = nowhere.into_iter().chain([("DATABASE_URL", url.as_str())]);
    let mut env = Env::new(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let backends = Backends::from_env(&mut env);
    env.finish()?;
    let db = PgPool::connect(&url).await?;
    MIGRATIONS.run(&db).await?;

    let harness = Harness::new(|| app::app(&MIGRATIONS), &backends)?;
    for (who, text) in [("ada", "water the plants"), ("ada", "close the window"), ("grace", "")] {
        let reminder = Remind { who: who.to_owned(), text: text.to_owned() };
        harness.enqueue(&reminder, Duration::ZERO).await?;
    }
    let mut dead = harness.drain().await?;
    harness.advance(Duration::from_secs(1)).await?;
    dead.extend(harness.drain().await?);
    let letters: Vec<(String, String)> =
        sqlx::query_as("SELECT who, text FROM letters ORDER BY letter_id").fetch_all(&db).await?;
    for (who, text) in letters {
        println!("letter to {who}: {text}");
    }
    let digests: Vec<(String, i64)> = sqlx::query_as("SELECT who, letters FROM digests").fetch_all(&db).await?;
    for (who, count) in digests {
        println!("digest for {who}: {count} letters");
    }
    for job in dead {
        println!("dead {}: {}", job.kind, job.errors.last().map_or("?", |error| &error.error));
    }

    let reminder = Remind { who: "alan".to_owned(), text: "lock up".to_owned() };
    let count = async || Ok(sqlx::query_scalar("SELECT count(*) FROM letters").fetch_one(&db).await?);
    let survival = harness.survives(&reminder, count).await?;
    println!("workers that died or froze with a reminder: {survival:?}");
    Ok(())
}
