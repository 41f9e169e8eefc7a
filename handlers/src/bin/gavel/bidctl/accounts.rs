//! Passwords for a new installation, and what its servers and programs are told of them.
use crate::bidctl::output::Output;
use anyhow::{Context, bail};
use clap::Args;
use gavel_accounts::{
    Passwords, Program,
    postgres::{Role, roles_sql},
    rabbitmq_definitions, redis_users,
};
use serde_json::json;
use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Makes passwords. Under DIR is a directory for each that is to see some of them: postgres, rabbitmq, redis,
/// administrator, migrator, service, worker, operator, reader. Nothing that is there is overwritten.
#[derive(Args)]
pub(crate) struct Accounts {
    /// Where the directories are made, or are there already
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Where PostgreSQL is
    #[arg(long, value_name = "HOST", default_value = "postgres")]
    postgres: String,
    /// Where RabbitMQ is
    #[arg(long, value_name = "HOST", default_value = "rabbitmq")]
    rabbitmq: String,
    /// Where Redis is
    #[arg(long, value_name = "HOST", default_value = "redis")]
    redis: String,
    /// Let others read the files: their directories are the border, as where each is a volume of its own
    #[arg(long)]
    readable: bool,
}

impl Accounts {
    pub(crate) fn run(&self, output: Output) -> anyhow::Result<()> {
        let files = self.files();
        let made: Vec<_> = files.iter().map(|(name, _)| self.dir.join(name)).collect();
        if made.iter().all(|file| file.exists()) {
            output.record(&json!({ "changed": false }), &[("accounts", "are there already".to_owned())]);
            return Ok(());
        }
        if let Some(there) = made.iter().find(|file| file.exists()) {
            bail!(
                "{} is there, and others are not: nothing is overwritten; delete all of them to make new ones",
                there.display()
            );
        }
        for (name, text) in &files {
            self.write(&self.dir.join(name), text)?;
        }
        let dir = self.dir.display().to_string();
        output.record(&json!({ "changed": true, "directory": dir }), &[("accounts", format!("made in {dir}"))]);
        Ok(())
    }

    /// Each file, and what is in it.
    fn files(&self) -> Vec<(String, String)> {
        let passwords = Passwords::random();
        let database =
            |account: &str, password: &str| format!("postgres://{account}:{password}@{}/gavel", self.postgres);
        let mut files = vec![
            ("postgres/password".to_owned(), passwords.administrator.clone()),
            ("rabbitmq/definitions.json".to_owned(), rabbitmq_definitions("gavel", "/", &passwords).to_string()),
            ("redis/users.acl".to_owned(), redis_users("gavel", &passwords)),
            ("administrator/roles.sql".to_owned(), roles_sql("gavel", &passwords.at_postgres())),
            ("administrator/database-url".to_owned(), database("gavel", &passwords.administrator)),
        ];
        for (role, password) in passwords.at_postgres() {
            files.push((format!("{}/database-url", directory(role)), database(role.account(), password)));
        }
        let own = [
            ("service", Program::Service),
            ("worker", Program::Worker),
            // A backfill's worker is a worker beside being the owner, and whoever looks how workers are reads as one.
            ("migrator", Program::Worker),
            ("operator", Program::Worker),
        ];
        for (name, program) in own {
            let (account, password) = (program.account(), passwords.of(program));
            for (what, url) in [
                ("amqp-url", format!("amqp://{account}:{password}@{}/%2f", self.rabbitmq)),
                ("redis-url", format!("redis://{account}:{password}@{}", self.redis)),
            ] {
                files.push((format!("{name}/{what}"), url));
            }
        }
        files
    }

    fn write(&self, file: &Path, text: &str) -> anyhow::Result<()> {
        let mode = if self.readable { 0o644 } else { 0o600 };
        let written = || -> std::io::Result<()> {
            fs::create_dir_all(file.parent().unwrap_or(file))?;
            OpenOptions::new().write(true).create_new(true).mode(mode).open(file)?.write_all(text.as_bytes())
        };
        written().with_context(|| format!("can't write {}", file.display()))
    }
}

/// The directory of what a role is to see: `service` of `gavel_service`.
fn directory(role: Role) -> &'static str {
    role.account().trim_start_matches("gavel_")
}
