//! The committed `.sqlx`: what `query!` knows of the schema without a database.
use crate::{
    install::{PROTOC, SQLX, ensure},
    progress::{Step, run, run_quietly},
    servers::{Urls, layout::Layout, processes::Processes},
};
use clap::Args;
use std::process::Command;

/// Writes .sqlx from a private, freshly migrated database.
#[derive(Args)]
pub(crate) struct Sqlx {
    /// Only check that it is up to date
    #[arg(long)]
    pub(crate) check: bool,
}

impl Sqlx {
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let servers = Processes::start(Layout::claim("test")?, false)?;
        self.run_on(&servers.urls)
    }

    pub(crate) fn run_on(&self, urls: &Urls) -> anyhow::Result<()> {
        ensure(&[PROTOC])?;
        let sqlx = SQLX.path()?;
        let database = urls.database(&format!("gavel_sqlx_{}", std::process::id()));
        let step = Step::begin("migrating a database for .sqlx");
        // By sqlx itself: bidctl can't be built while .sqlx is out of date.
        for arguments in [&["database", "create"][..], &["migrate", "run", "--source", "migrations/expand"]] {
            let mut command = Command::new(&sqlx);
            run_quietly(
                command.arg("sqlx").args(arguments).args(["--database-url", &database]).current_dir(crate::root()),
            )?;
        }
        step.done("migrated");
        let mut prepare = Command::new(&sqlx);
        prepare.args(["sqlx", "prepare", "--workspace", "--database-url", &database]).current_dir(crate::root());
        if self.check {
            prepare.arg("--check");
        }
        let prepared = run(prepare.args(["--", "--workspace"]).env("SQLX_OFFLINE", "false"));
        let mut drop = Command::new(&sqlx);
        run_quietly(drop.args(["sqlx", "database", "drop", "-y", "-f", "--database-url", &database]))?;
        prepared
    }
}
