//! What a process and whoever listens to it say to each other: a line of JSON each, over a connection for each
//! conversation. A process says [`Hello`] when it starts and is told its [`Plan`]; at a site it says [`Reached`], and
//! where the plan has it stop there, it goes on at the [`Order`].
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Where, around what is done at a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Position {
    /// Nothing of it is done.
    Before,
    /// It is done, and nobody knows yet: as where the answer is lost.
    After,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Before => "before",
            Self::After => "after",
        })
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "before" => Ok(Self::Before),
            "after" => Ok(Self::After),
            _ => Err(format!("{text:?} is no position; allowed: before, after")),
        }
    }
}

/// With whom a site has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Server {
    /// PostgreSQL.
    Database,
    /// RabbitMQ.
    Broker,
    /// Redis.
    Cache,
    /// Whoever calls.
    Client,
}

/// A process has started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Its id.
    pub pid: u32,
}

/// Where it is to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// `handler.what`.
    pub site: String,
    /// Before or after.
    pub position: Position,
    /// At the first time it comes by, the second, …
    pub hit: u64,
}

/// All that a process is told when it starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Where it is to stop.
    pub stops: Vec<Stop>,
}

/// A process has come by a site: for the first time, or where it is to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reached {
    /// Its id.
    pub pid: u32,
    /// With whom it has to do.
    pub server: Server,
    /// Where.
    pub stop: Stop,
    /// Whether it waits there.
    pub waits: bool,
}

/// What a process that waits is told. That nobody is there any more says the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Go on.
    GoOn,
}
