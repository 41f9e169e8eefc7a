//! What happens if it fails at this very line.
use crate::{
    install::{self, C_COMPILER, PROTOC, ensure},
    progress::run,
    test::{EVERYTHING, Prepared, Services, build, chosen},
};
use anyhow::bail;
use clap::{Args, ValueEnum};
use std::process::Command;

/// Stop real processes where they touch a server, make a real fault there, and see what is left. Alone it lists where
/// that is.
#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct Atlas {
    /// Where the servers come from; containers where a Docker engine answers, otherwise processes
    #[arg(long)]
    services: Option<Services>,
    /// One case, and its story: where, such as place_bid.commit
    #[arg(long, value_name = "HANDLER.WHAT", requires_all = ["position", "action"], conflicts_with = "all")]
    site: Option<String>,
    /// Whether it is done when the fault is made
    #[arg(long, requires = "site")]
    position: Option<Position>,
    /// The first time that somebody comes by, the second, …
    #[arg(long, value_name = "N", requires = "site", default_value_t = 1)]
    hit: u64,
    /// What is done there
    #[arg(long, requires = "site")]
    action: Option<Action>,
    /// A fault before it, such as place_bid.commit:after:kill: then it is the recovery from that which is stopped
    #[arg(long, requires = "site", value_name = "SITE:POSITION:ACTION")]
    first: Option<String>,
    /// Every case
    #[arg(long)]
    all: bool,
    /// Of all, only those that have this in them as they are printed, such as "place_bid." or "action restart"
    #[arg(long, value_name = "TEXT", requires = "all")]
    only: Option<String>,
    /// Of each site one case, the same in every run
    #[arg(long, requires = "all")]
    sample: bool,
    /// Write docs/atlas and docs/atlas.md
    #[arg(long, requires = "all", conflicts_with = "sample")]
    write: bool,
    /// Go on with a run that was ended: cases that are kept are not run again
    #[arg(long, requires = "write")]
    resume: bool,
    /// Write docs/atlas.md and its page anew, of the entries that were kept
    #[arg(long, conflicts_with_all = ["all", "site"])]
    render: bool,
    /// Cases side by side
    #[arg(long, value_name = "N", requires = "all", default_value_t = 4)]
    at_a_time: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Position {
    /// Nothing of it is done
    Before,
    /// It is done, and nobody has heard of it
    After,
}

#[derive(Clone, Copy, ValueEnum)]
enum Action {
    /// The process is killed, as by kill -9, and another is started
    Kill,
    /// Every connection to the server is cut
    Reset,
    /// PostgreSQL ends every session of the programs
    Terminate,
    /// Nothing goes through to the server for longer than anybody waits
    Silence,
    /// The process stands still until another has its place, and wakes up
    Freeze,
    /// Nobody is at the server's address for five seconds
    Away,
    /// The server is started again; Redis holds nothing then
    Restart,
    /// Redis takes no writes for five seconds
    ReadOnly,
    /// RabbitMQ's memory alarm: for five seconds it takes nothing from publishers
    Alarm,
    /// Somebody deletes the consumers' queues, with what waits in them
    DeleteQueues,
    /// For five seconds PostgreSQL's disk has no room left
    FullDisk,
}

impl Atlas {
    /// One case of each site.
    pub(crate) fn sample(services: Services) -> Self {
        Self {
            services: Some(services),
            site: None,
            position: None,
            hit: 1,
            action: None,
            first: None,
            all: true,
            only: None,
            sample: true,
            write: false,
            resume: false,
            render: false,
            at_a_time: 5,
        }
    }

    /// None where no case is run: to list sites, and to write what was kept.
    pub(crate) fn services(&self) -> Option<Services> {
        (self.all || self.site.is_some()).then(|| chosen(self.services))
    }

    pub(crate) fn run(&self) -> anyhow::Result<()> {
        if self.write && self.only.is_some() && !self.resume {
            bail!("--write with --only would leave all others out; allowed: --resume, which keeps them");
        }
        ensure(&[C_COMPILER, PROTOC])?;
        let bins = build(&EVERYTHING, false)?;
        let Some(services) = self.services() else {
            return run(Command::new(bins.join("atlas")).args(self.render.then_some("--render")));
        };
        if let Some(site) = &self.site {
            // Before servers are started for it: who has misspelt it need not wait for them.
            run(Command::new(bins.join("atlas")).args(["--knows", site]))?;
        }
        install::everything()?;
        run(Prepared::on(services)?.with_small_disk()?.program("atlas").args(self.asked()))
    }

    /// As the program that runs the cases takes it.
    fn asked(&self) -> Vec<String> {
        let name = |value: &dyn Fn() -> Option<clap::builder::PossibleValue>| {
            value().map(|value| value.get_name().to_owned()).unwrap_or_default()
        };
        if let (Some(site), Some(position), Some(action)) = (&self.site, self.position, self.action) {
            let (position, action) = (name(&|| position.to_possible_value()), name(&|| action.to_possible_value()));
            let words = ["--site", site, "--position", &position, "--action", &action, "--hit", &self.hit.to_string()];
            let first = self.first.iter().flat_map(|first| ["--first".to_owned(), first.clone()]);
            return words.map(str::to_owned).into_iter().chain(first).collect();
        }
        let mut words = Vec::new();
        for (is_asked, word) in
            [(self.all, "--all"), (self.sample, "--sample"), (self.write, "--write"), (self.resume, "--resume")]
        {
            words.extend(is_asked.then(|| word.to_owned()));
        }
        if self.all {
            words.extend(["--at-a-time".to_owned(), self.at_a_time.to_string()]);
        }
        words.extend(self.only.iter().flat_map(|text| ["--only".to_owned(), text.clone()]));
        words
    }
}
