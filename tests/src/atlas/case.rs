//! Which faults make sense where.
use gavel_runtime::boundary::{Position, Server};
use std::{fmt, str::FromStr};

/// What is done to a process, or to its way to a server, at a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// The process is killed, as by `kill -9`, and another is started.
    Kill,
    /// Every connection to the server that the site has to do with is cut. After: once the server has answered, and
    /// before the answer arrives.
    Reset,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Kill, Self::Reset];
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill",
            Self::Reset => "reset",
        })
    }
}

impl FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|action| action.to_string() == text);
        found.ok_or_else(|| format!("{text:?} is no action; allowed: kill, reset"))
    }
}

/// One action at one site.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Case {
    /// `handler.what`.
    pub site: String,
    /// Before it or after it.
    pub position: Position,
    /// At the first time it is come by, the second, …
    pub hit: u64,
    /// What is done.
    pub action: Action,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { site, position, hit, action } = self;
        write!(f, "--site {site} --position {position} --hit {hit} --action {action}")
    }
}

/// A site that a run came by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site {
    /// `handler.what`.
    pub name: String,
    /// With whom it has to do.
    pub server: Server,
}

impl Site {
    /// What is done there.
    pub fn operation(&self) -> &str {
        self.name.split_once('.').map_or("", |(_, operation)| operation)
    }

    /// Why this action makes no sense there, if so.
    pub fn excludes(&self, position: Position, action: Action) -> Option<&'static str> {
        match (self.operation(), position, action) {
            ("confirm", Position::After, Action::Reset) => Some("it is what publish is answered with"),
            ("ack", Position::After, Action::Reset) => Some("nobody answers it"),
            ("prefetch" | "cancel" | "close_channel", Position::After, Action::Reset) => {
                Some("nothing depends on its answer")
            }
            _ => None,
        }
    }

    /// One of its cases, the same in every run: together they are a sample of all.
    pub fn one_case(&self) -> Option<Case> {
        let cases: Vec<_> = self.cases().collect();
        let sum: usize = self.name.bytes().map(usize::from).sum();
        cases.get(sum % cases.len().max(1)).cloned()
    }

    /// All cases of it, at its first time.
    pub fn cases(&self) -> impl Iterator<Item = Case> + '_ {
        let both = [Position::Before, Position::After];
        let all = both.into_iter().flat_map(|position| Action::ALL.map(|action| (position, action)));
        all.filter(|(position, action)| self.excludes(*position, *action).is_none()).map(|(position, action)| Case {
            site: self.name.clone(),
            position,
            hit: 1,
            action,
        })
    }
}
