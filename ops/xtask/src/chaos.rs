//! Faults at random, for long.
use crate::{
    install,
    progress::run,
    rehearse::{Profile, last_release},
    test::{Prepared, Services, chosen},
};
use clap::Args;

/// Kill, freeze, replace and cut off services and workers at random, under load, and see whether anything was lost.
#[derive(Args)]
pub(crate) struct Chaos {
    /// Where the servers come from; containers where a Docker engine answers, otherwise processes
    #[arg(long)]
    services: Option<Services>,
    /// Faults are made for so long
    #[arg(long, value_name = "N", default_value_t = 60.0)]
    minutes: f64,
    /// What is random follows from it
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Every second process is of the last release, while the schema changes
    #[arg(long)]
    two_versions: bool,
}

impl Chaos {
    /// Not to find anything, only to see that everything runs.
    pub(crate) fn smoke(services: Services) -> Self {
        Self { services: Some(services), minutes: 0.5, seed: 1, two_versions: false }
    }

    pub(crate) fn services(&self) -> Services {
        chosen(self.services)
    }

    pub(crate) fn run(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.minutes > 0.0, "--minutes {}: allowed: more than 0", self.minutes);
        install::everything()?;
        let seconds = (self.minutes * 60.0).ceil().to_string();
        let prepared = Prepared::on(self.services())?.with_small_disk()?;
        let mut chaos = prepared.program("chaos");
        if self.two_versions {
            chaos.env("GAVEL_TEST_LAST_RELEASE", last_release(Profile::Dev)?);
        }
        run(chaos.args([seconds, self.seed.to_string()]))
    }
}
