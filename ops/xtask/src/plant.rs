//! Bugs on purpose, and what finds them.
use crate::{
    install::{self, NEXTEST},
    progress::run,
    test::{Prepared, Services, build, chosen, with_containers},
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
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        if self.names.is_empty() && !self.all {
            let bins = build(&["--package", "gavel-tests", "--bin", "plant"], false)?;
            return run(&mut Command::new(bins.join("plant")));
        }
        let services = chosen(self.services);
        let mut asked: Vec<&str> = self.names.iter().map(String::as_str).collect();
        asked.extend(self.all.then_some("--all"));
        if services == Services::Containers && !cfg!(feature = "containers") {
            return with_containers(&[&["plant", "--services", "containers"], asked.as_slice()].concat());
        }
        install::everything()?;
        let nextest = NEXTEST.path()?;
        let prepared = Prepared::on(services)?.with_bugs()?;
        run(prepared.program("plant").args(asked).env("GAVEL_TEST_NEXTEST", nextest))
    }
}
