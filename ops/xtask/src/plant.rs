//! Bugs on purpose, and what finds them.
use crate::{
    install::{self, C_COMPILER, NEXTEST, PROTOC, ensure},
    progress::run,
    test::{EVERYTHING, Prepared, Services, build, chosen},
};
use clap::Args;
use std::process::Command;

/// Plant bugs in a build of their own, and see which test or case of the atlas finds each. Alone it lists them.
#[derive(Args)]
pub(crate) struct Plant {
    /// Where the servers come from; containers where a Docker engine answers, otherwise processes
    #[arg(long)]
    services: Option<Services>,
    /// Which, such as no_row_lock
    #[arg(conflicts_with = "all")]
    names: Vec<String>,
    /// Each of them
    #[arg(long)]
    all: bool,
}

impl Plant {
    /// None for a list.
    pub(crate) fn services(&self) -> Option<Services> {
        (self.all || !self.names.is_empty()).then(|| chosen(self.services))
    }

    pub(crate) fn run(&self) -> anyhow::Result<()> {
        ensure(&[C_COMPILER, PROTOC])?;
        let plant = build(&EVERYTHING, false)?.join("plant");
        let Some(services) = self.services() else { return run(&mut Command::new(plant)) };
        // Before servers are started for it.
        run(Command::new(&plant).arg("--known").args(&self.names))?;
        let mut asked: Vec<&str> = self.names.iter().map(String::as_str).collect();
        asked.extend(self.all.then_some("--all"));
        install::everything()?;
        let nextest = NEXTEST.path()?;
        let prepared = Prepared::on(services)?.with_bugs()?;
        run(prepared.program("plant").args(asked).env("GAVEL_TEST_NEXTEST", nextest))
    }
}
