//! Faults at random, for long.
use crate::{
    install,
    progress::run,
    test::{Prepared, Services, chosen, with_containers},
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
}

impl Chaos {
    /// Not to find anything, only to see that everything runs.
    pub(crate) fn smoke(services: Services) -> Self {
        Self { services: Some(services), minutes: 0.5, seed: 1 }
    }

    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let (services, minutes, seed) = (chosen(self.services), self.minutes.to_string(), self.seed.to_string());
        anyhow::ensure!(self.minutes > 0.0, "--minutes {minutes}: allowed: more than 0");
        if services == Services::Containers && !cfg!(feature = "containers") {
            let words = ["chaos", "--services", "containers", "--minutes", &minutes, "--seed", &seed];
            return with_containers(&words);
        }
        install::everything()?;
        let seconds = (self.minutes * 60.0).ceil().to_string();
        run(Prepared::on(services)?.program("chaos").args([seconds, seed]))
    }
}
