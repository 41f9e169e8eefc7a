//! Six milestones: chapters of `docs/milestones`, and whether their exercises are done.
mod chapter;
mod check;
mod checkpoint;
mod shell;
mod solved;

use crate::test::{Services, chosen};
use chapter::Chapter;
use clap::Args;

/// Say which exercises are done, up to that milestone, and what is missing.
#[derive(Args)]
pub(crate) struct Milestone {
    /// Where the servers come from; containers where a Docker engine answers, otherwise processes
    #[arg(long)]
    services: Option<Services>,
    /// Which, from 1 to 6; alone it lists them
    number: Option<usize>,
    /// Without those before it
    #[arg(long, requires = "number")]
    alone: bool,
    /// Try the chapters: their commands print what they show, no exercise is done here, and each is in a copy of this
    /// checkout that has docs/milestones/solutions; of one chapter, its commands
    #[arg(long, conflicts_with = "alone")]
    check: bool,
}

impl Milestone {
    /// What CI looks at.
    pub(crate) fn check_all(services: Services) -> Self {
        Self { services: Some(services), number: None, alone: false, check: true }
    }

    /// None for a list.
    pub(crate) fn services(&self) -> Option<Services> {
        (self.check || self.number.is_some()).then(|| chosen(self.services))
    }

    pub(crate) fn run(&self) -> anyhow::Result<()> {
        let chapters = Chapter::all()?;
        let Some(services) = self.services() else {
            for chapter in &chapters {
                println!("{}  {}", chapter.title(), chapter.file());
            }
            return Ok(());
        };
        let Some(number) = self.number else { return check::everything(&chapters, services) };
        let last = number.checked_sub(1).filter(|index| *index < chapters.len());
        let last =
            last.ok_or_else(|| anyhow::anyhow!("there is no milestone {number}; allowed: 1 to {}", chapters.len()))?;
        if self.check {
            return check::commands_of(&chapters[last..=last], services);
        }
        let first = if self.alone { last } else { 0 };
        checkpoint::look(&chapters[first..=last], services)
    }
}
