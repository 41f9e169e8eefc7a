//! A worker with jobs of the crate sqlxmq and handlers side by side: `DATABASE_URL=postgres://… AMQP_URL=amqp://…
//! REDIS_URL=redis://… cargo run -p gavel-runtime --example moving`, with `MOVED=true` after the first job has moved. It
//! migrates an empty database by itself, and needs neither RabbitMQ nor Redis to be there: nothing here uses them.
#![expect(clippy::disallowed_types, reason = "sqlxmq's jobs take sqlx's own pool")]
mod app;

use gavel_runtime::{
    app::Chosen,
    config::{Backends, Env, ProcessConfig},
    process,
};
use sqlx::{PgPool, migrate::Migrator};

static MIGRATIONS: Migrator = sqlx::migrate!("examples/moving/migrations");

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut env = Env::from_process();
    let backends = Backends::from_env(&mut env);
    let config = ProcessConfig::of_worker(&mut env);
    env.finish()?;
    MIGRATIONS.run(&PgPool::connect(&std::env::var("DATABASE_URL")?).await?).await?;
    let has_moved = std::env::var("MOVED").is_ok_and(|moved| moved == "true");
    process::run_worker(app::app(&MIGRATIONS, has_moved), "moving", &backends, &config, &Chosen::default()).await
}
