//! Connecting, to whichever of the URL's hosts takes writes now (or follows the one that does), and noticing when that
//! has changed.
#![expect(clippy::disallowed_types, reason = "it is the adapter")]
use super::{
    Conn,
    hosts::{self, PRIMARY, STANDBY},
    session::{self, Purpose},
};
use crate::base::clock;
use chrono::{DateTime, TimeDelta, Utc};
use secrecy::SecretString;
use sqlx::{Connection, Executor, PgConnection, Row, postgres::PgConnectOptions};
use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// A host that does not answer within this time is passed over.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A server that takes longer over a look is busy.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);

/// All that is said of a server that says nothing.
const SILENT: &str = "the database takes long to answer";
/// A server that says nothing for so long is not busy.
const SILENT_FOR: Duration = Duration::from_secs(10);

/// What was found when the database was last looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State {
    /// It is what is looked for.
    Up,
    /// It is there and too busy to say more.
    Busy(&'static str),
    /// It can't be used, for this reason.
    Down(&'static str),
}

/// The way to connect. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connector(Arc<Inner>);

struct Inner {
    hosts: Vec<PgConnectOptions>,
    /// What a host must be good for.
    wanted: Purpose,
    current: AtomicUsize,
    /// Sessions that are older may be with a host that takes no writes any more.
    renewed: Mutex<Instant>,
    state: Mutex<State>,
    silent_since: Mutex<Option<Instant>>,
    /// How far the database's clock is ahead of this process's, in microseconds.
    ahead_us: AtomicI64,
    quiet: Duration,
}

/// A server, or what stands before it, that hangs up on whoever connects has nothing to do with what they wanted to ask:
/// sqlx takes the end of the stream for an answer that it does not know.
pub(super) fn while_connecting(error: sqlx::Error) -> sqlx::Error {
    match error {
        sqlx::Error::Protocol(why) => sqlx::Error::Io(io::Error::new(io::ErrorKind::ConnectionAborted, why)),
        other => other,
    }
}

impl Connector {
    /// `process` is what sessions are called in PostgreSQL; `quiet` how long a transaction may be idle.
    pub(crate) fn new(url: &SecretString, process: &str, quiet: Duration) -> anyhow::Result<Self> {
        Ok(Self::to(hosts::options_of(url, PRIMARY)?, Purpose::Work, process, quiet))
    }

    /// As [`Connector::new`], to standbys.
    pub(super) fn to_standbys(url: &SecretString, process: &str, quiet: Duration) -> anyhow::Result<Self> {
        Ok(Self::to(hosts::options_of(url, STANDBY)?, Purpose::Standby, process, quiet))
    }

    fn to(hosts: Vec<PgConnectOptions>, wanted: Purpose, process: &str, quiet: Duration) -> Self {
        Self(Arc::new(Inner {
            wanted,
            hosts: hosts.into_iter().map(|options| options.application_name(process)).collect(),
            current: AtomicUsize::new(0),
            renewed: Mutex::new(Instant::now()),
            // Until somebody has looked: so that what the first call says is not overruled.
            state: Mutex::new(State::Up),
            silent_since: Mutex::default(),
            ahead_us: AtomicI64::new(0),
            quiet,
        }))
    }

    /// Returns how to connect to the host that was the one when it was last looked.
    pub(crate) fn options(&self) -> &PgConnectOptions {
        &self.0.hosts[self.0.current.load(Relaxed)]
    }

    /// A connection of one's own, in the name of that handler.
    pub(crate) async fn connect(&self, handler: &'static str, purpose: Purpose) -> Result<Conn, sqlx::Error> {
        Ok(Conn::own(self.connect_to(self.options(), purpose).await?, handler))
    }

    /// As it is, without a session's settings, to another database of that server.
    pub(crate) async fn connect_plainly(&self, handler: &'static str, database: &str) -> Result<Conn, sqlx::Error> {
        let options = self.options().clone().database(database);
        Ok(Conn::own(PgConnection::connect_with(&options).await.map_err(while_connecting)?, handler))
    }

    async fn connect_to(&self, host: &PgConnectOptions, purpose: Purpose) -> Result<PgConnection, sqlx::Error> {
        let mut conn = PgConnection::connect_with(host).await.map_err(while_connecting)?;
        match self.begin(&mut conn, purpose).await {
            Ok(()) => Ok(conn),
            Err(error) => {
                let _ = conn.close_hard().await;
                Err(error)
            }
        }
    }

    /// Begins the session of a connection.
    pub(super) async fn begin(&self, conn: &mut PgConnection, purpose: Purpose) -> Result<(), sqlx::Error> {
        purpose.begin(conn, self.0.quiet).await
    }

    /// Returns whether a session that began so long ago may be with a host that is not the one any more.
    pub(super) fn is_outdated(&self, age: Duration) -> bool {
        age > self.0.renewed.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Returns what was found when it was last looked.
    pub(crate) fn state(&self) -> State {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The database's time, as far as it is known here: for what is shown, never for what is decided.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        clock::wall() + TimeDelta::microseconds(self.0.ahead_us.load(Relaxed))
    }

    /// Looks over a connection that is kept from look to look, and finds another host where this one is not it.
    /// True where connections are to be made to another host from now on.
    pub(crate) async fn look(&self, kept: &mut Option<Conn>) -> (State, bool) {
        let before = self.0.current.load(Relaxed);
        let state = match kept.take() {
            None => self.find(kept).await,
            Some(mut conn) => match self.ask(conn.raw()).await {
                Ok(true) => {
                    *kept = Some(conn);
                    State::Up
                }
                Err(Trouble::Busy(why)) => State::Busy(why),
                Ok(false) | Err(Trouble::Gone(_)) => {
                    self.renew();
                    self.find(kept).await
                }
            },
        };
        let state = self.patient(state);
        *self.0.state.lock().unwrap_or_else(PoisonError::into_inner) = state.clone();
        (state, self.0.current.load(Relaxed) != before)
    }

    /// A server that has said nothing for long is none: it may be switched off, or cut off without a word.
    fn patient(&self, state: State) -> State {
        let mut silent_since = self.0.silent_since.lock().unwrap_or_else(PoisonError::into_inner);
        if state != State::Busy(SILENT) {
            *silent_since = None;
            return state;
        }
        let since = *silent_since.get_or_insert_with(Instant::now);
        if since.elapsed() < SILENT_FOR { state } else { State::Down(SILENT) }
    }

    fn renew(&self) {
        *self.0.renewed.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Tries every host, the current one first, until one is what is looked for.
    async fn find(&self, kept: &mut Option<Conn>) -> State {
        let (first, count) = (self.0.current.load(Relaxed), self.0.hosts.len());
        let mut found = State::Down("the database does not answer");
        for host in (first..first + count).map(|host| host % count) {
            match self.try_host(host).await {
                Ok(conn) => {
                    if host != first {
                        let name = self.0.hosts[host].get_host();
                        let what =
                            if self.0.wanted == Purpose::Standby { "reads that may be old" } else { "the writes" };
                        tracing::warn!(host = name, "another host of the database takes {what} from now on");
                        self.0.current.store(host, Relaxed);
                        self.renew();
                    }
                    *kept = Some(Conn::own(conn, "health"));
                    return State::Up;
                }
                Err(Trouble::Busy(why)) => found = State::Busy(why),
                Err(Trouble::Gone(why)) if found == State::Down("the database does not answer") => {
                    found = State::Down(why);
                }
                Err(Trouble::Gone(_)) => {}
            }
        }
        found
    }

    async fn try_host(&self, host: usize) -> Result<PgConnection, Trouble> {
        let connecting = self.connect_to(&self.0.hosts[host], self.0.wanted);
        match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(mut conn)) => self.ask(&mut conn).await.map(|_| conn),
            Ok(Err(error)) => Err(Trouble::of(&error)),
            Err(_) => Err(Trouble::Busy(SILENT)),
        }
    }

    /// Returns whether the session is what is looked for; notes the database's time.
    async fn ask(&self, conn: &mut PgConnection) -> Result<bool, Trouble> {
        let (before, began) = (clock::wall(), Instant::now());
        let row = match tokio::time::timeout(LOOK_TIMEOUT, conn.fetch_one(self.0.wanted.question())).await {
            Ok(Ok(row)) => row,
            Ok(Err(error)) => return Err(Trouble::of(&error)),
            Err(_) => return Err(Trouble::Busy(SILENT)),
        };
        let read = |error: sqlx::Error| Trouble::of(&error);
        let (fits, at): (bool, DateTime<Utc>) = (row.try_get(0).map_err(read)?, row.try_get(1).map_err(read)?);
        let middle = before + began.elapsed() / 2;
        self.0.ahead_us.store((at - middle).num_microseconds().unwrap_or_default(), Relaxed);
        Ok(fits)
    }
}

/// Why a host can't be used.
enum Trouble {
    /// It is there.
    Busy(&'static str),
    Gone(&'static str),
}

impl Trouble {
    fn of(error: &sqlx::Error) -> Self {
        let code =
            error.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default().into_owned();
        tracing::debug!(%error, "the database was looked at");
        match (&*code, error) {
            ("53300", _) => Self::Busy("the database takes no more connections"),
            ("57P03", _) => Self::Gone("the database is starting up or shutting down"),
            ("25006", _) => Self::Gone("the database is read-only"),
            ("28P01" | "28000", _) => Self::Gone("the database refuses the user or the password"),
            ("3D000", _) => Self::Gone("there is no such database"),
            (_, sqlx::Error::Protocol(text)) if text == session::UNFIT => Self::Gone("the database is read-only"),
            (_, sqlx::Error::Protocol(text)) if text == session::NO_STANDBY => Self::Gone("it is no standby"),
            _ => Self::Gone("the database does not answer"),
        }
    }
}
