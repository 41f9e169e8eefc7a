//! Which faults make sense where.
//!
//! What is no site: a timer, since a process that is killed while it waits is one that is killed after what it did last,
//! and one that waits for longer is frozen there; and a frame of a stream, since its client comes back with what it knows
//! whichever was the last, which [`watcher`](super::watcher) does in every case.
//!
//! What is no position: *during*. Each site is one statement, one frame or one command, which its server does as a whole or
//! not at all: whoever loses it in the middle of it finds what is found before or after. Both ends of that are cases: a
//! server that is silent does it late, and one that is started again has forgotten that it began.
use gavel_runtime::boundary::{Position, Server};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// What is done to a process, or to its way to a server, at a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// The process is killed, as by `kill -9`, and another is started.
    Kill,
    /// Every connection to the server that the site has to do with is cut. After: once the server has answered, and
    /// before the answer arrives.
    Reset,
    /// The database ends the sessions of all programs, and says so.
    Terminate,
    /// Nothing goes through to that server for longer than anybody waits, and nobody is told. Then it comes late.
    Silence,
    /// The process stands still until another has taken its place and its leases have run out; then it goes on.
    Freeze,
    /// Nobody is at that server's address for a while, as while it is started again: connections are cut, and new ones
    /// refused.
    Away,
    /// The server is stopped and started: PostgreSQL crashes and recovers, Redis comes back without anything.
    Restart,
    /// Redis takes no writes for a while, of nobody.
    ReadOnly,
    /// RabbitMQ's memory alarm: for a while it takes nothing from publishers.
    Alarm,
    /// Somebody deletes the consumers' queues, with what waits in them.
    DeleteQueues,
    /// PostgreSQL's disk has no room left for a while.
    FullDisk,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Kill,
        Self::Reset,
        Self::Terminate,
        Self::Silence,
        Self::Freeze,
        Self::Away,
        Self::Restart,
        Self::ReadOnly,
        Self::Alarm,
        Self::DeleteQueues,
        Self::FullDisk,
    ];

    /// Which make sense where. What is done and then ended is what a reset leaves, and what a server leaves that goes
    /// away or is started again; a server that falls silent then is like a process that is frozen; sessions and a disk
    /// that is full are PostgreSQL's alone, queues and alarms RabbitMQ's, and Redis alone is written to by those who go
    /// on where it can't be. Of a client that goes away nobody is told before the call has come to its end: it is as if
    /// the process were killed after it.
    pub const fn of(server: Server, position: Position) -> &'static [Self] {
        match (server, position) {
            (Server::Database, Position::Before) => const { &with([Self::Terminate, Self::Restart, Self::FullDisk]) },
            (Server::Broker, Position::Before) => const { &with([Self::DeleteQueues, Self::Restart, Self::Alarm]) },
            (Server::Cache, Position::Before) => {
                &[Self::Kill, Self::Reset, Self::Silence, Self::Freeze, Self::Away, Self::Restart, Self::ReadOnly]
            }
            (Server::Client, _) => &[Self::Kill, Self::Freeze],
            (_, Position::After) => &[Self::Kill, Self::Reset, Self::Freeze],
        }
    }

    /// Whether every case on these servers would feel it.
    pub fn is_felt_by_all(self) -> bool {
        matches!(self, Self::Restart | Self::ReadOnly | Self::Alarm | Self::FullDisk)
    }

    /// Whether another process has the place of the one that it was done to.
    pub const fn leaves_another(self) -> bool {
        matches!(self, Self::Kill | Self::Freeze)
    }
}

/// What makes sense before anything that a server is asked for, and these.
const fn with(own: [Action; 3]) -> [Action; 8] {
    let [one, other, third] = own;
    [Action::Kill, Action::Reset, Action::Silence, Action::Freeze, Action::Away, one, other, third]
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill",
            Self::Reset => "reset",
            Self::Terminate => "terminate",
            Self::Silence => "silence",
            Self::Freeze => "freeze",
            Self::Away => "away",
            Self::Restart => "restart",
            Self::ReadOnly => "read-only",
            Self::Alarm => "alarm",
            Self::DeleteQueues => "delete-queues",
            Self::FullDisk => "full-disk",
        })
    }
}

impl FromStr for Action {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|action| action.to_string() == text);
        let allowed = Self::ALL.map(|action| action.to_string()).join(", ");
        found.ok_or_else(|| format!("{text:?} is no action; allowed: {allowed}"))
    }
}

/// One action at one site.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Case {
    /// `handler.what`.
    pub site: String,
    /// Before it or after it.
    pub position: Position,
    /// At the first time it is come by, the second, …
    pub hit: u64,
    /// What is done.
    pub action: Action,
    /// What was done before: then it is the recovery from that which is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<First>,
}

impl Case {
    /// Whether every case on these servers would feel one of its faults.
    pub fn is_felt_by_all(&self) -> bool {
        self.actions().any(Action::is_felt_by_all)
    }

    /// What is done, in that order.
    pub fn actions(&self) -> impl Iterator<Item = Action> + use<> {
        self.first.as_ref().map(|first| first.action).into_iter().chain([self.action])
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { site, position, hit, action, first } = self;
        if let Some(first) = first {
            write!(f, "--first {first} ")?;
        }
        write!(f, "--site {site} --position {position} --hit {hit} --action {action}")
    }
}

/// The first of two faults: `SITE:POSITION:ACTION`. Where it leaves another process, that one stops at the second; else
/// whoever comes by once the first was made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct First {
    /// `handler.what`, the first time it is come by.
    pub site: String,
    /// Before it or after it.
    pub position: Position,
    /// What is done.
    pub action: Action,
}

impl fmt::Display for First {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.site, self.position, self.action)
    }
}

impl FromStr for First {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let [site, position, action] = text.split(':').collect::<Vec<_>>()[..] else {
            return Err(format!("{text:?} is no first fault; allowed: SITE:POSITION:ACTION"));
        };
        Ok(Self { site: site.to_owned(), position: position.parse()?, action: action.parse()? })
    }
}

impl From<&Case> for First {
    fn from(case: &Case) -> Self {
        let Case { site, position, action, .. } = case.clone();
        Self { site, position, action }
    }
}

impl From<&First> for Case {
    fn from(first: &First) -> Self {
        let First { site, position, action } = first.clone();
        Self { site, position, hit: 1, action, first: None }
    }
}

/// A site that a run came by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Site {
    /// `handler.what`.
    pub name: String,
    /// With whom it has to do.
    pub server: Server,
}

impl Site {
    /// Who does it.
    pub fn handler(&self) -> &str {
        self.name.split_once('.').map_or(&self.name, |(handler, _)| handler)
    }

    /// What is done there.
    pub fn operation(&self) -> &str {
        self.name.split_once('.').map_or("", |(_, operation)| operation)
    }

    /// In the recovery from that, one of its cases, the same in every run.
    pub fn one_case_after(&self, first: &First) -> Option<Case> {
        one_of(&self.name, &self.further(1, Some(first)))
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

    /// One of its cases, the same in every run: together they are a sample of all. What everybody feels takes too long.
    pub fn one_case(&self) -> Option<Case> {
        let cases: Vec<_> = self.cases().filter(|case| !case.action.is_felt_by_all()).collect();
        one_of(&self.name, &cases)
    }

    /// All cases of it, at its first time.
    pub fn cases(&self) -> impl Iterator<Item = Case> + '_ {
        let both = [Position::Before, Position::After];
        let of = |position| Action::of(self.server, position).iter().map(move |action| (position, *action));
        let all = both.into_iter().flat_map(of);
        all.filter(|(position, action)| self.excludes(*position, *action).is_none()).map(|(position, action)| Case {
            site: self.name.clone(),
            position,
            hit: 1,
            action,
            first: None,
        })
    }

    /// The same faults at a later time, or in the recovery from another: those that tell most.
    pub fn further(&self, hit: u64, first: Option<&First>) -> Vec<Case> {
        let faults =
            [(Position::Before, Action::Kill), (Position::Before, Action::Reset), (Position::After, Action::Kill)];
        let makes_sense = |(position, action): &(Position, Action)| {
            Action::of(self.server, *position).contains(action) && self.excludes(*position, *action).is_none()
        };
        let of = |(position, action)| Case { site: self.name.clone(), position, hit, action, first: first.cloned() };
        faults.into_iter().filter(makes_sense).map(of).collect()
    }
}

/// By its name, which is the same tomorrow.
fn one_of(name: &str, cases: &[Case]) -> Option<Case> {
    let sum: usize = name.bytes().map(usize::from).sum();
    cases.get(sum % cases.len().max(1)).cloned()
}
