//! All changes of an application, in their order.
use super::header::{Header, duration};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use std::{collections::BTreeMap, time::Duration};

/// What a backfill may wait for.
const OLD_PROGRAMS: &str = "old programs";
/// A chunk of a backfill that says nothing else aims at this.
const TARGET: Duration = Duration::from_millis(150);
/// Nothing may have been written in the old form for this long, where the file says nothing else.
const QUIET: Duration = Duration::from_mins(10);
/// An old form that was taken out of reach is kept for this long, where the file says nothing else.
const BAKES: Duration = Duration::from_hours(24);

/// Where an application's files are: one directory for each phase, embedded by [`sqlx::migrate!`].
#[derive(Debug, Clone, Copy)]
pub struct Sources {
    /// `NNNN_verb_noun.sql`, a change each.
    pub expand: &'static Migrator,
    /// The same names, for those that fill rows.
    pub backfill: &'static Migrator,
    /// `NNNN_verb_noun.up.sql`, and `NNNN_verb_noun.down.sql` that undoes it.
    pub contract: &'static Migrator,
    /// The same names as in `expand`, for those that end by dropping something.
    pub drop: &'static Migrator,
}

/// One change.
#[derive(Debug, Clone)]
pub struct Change {
    /// Its number, from 1.
    pub number: i64,
    /// `NNNN_verb_noun`.
    pub name: String,
    /// Changes whose old form must be out of reach before this one's expand.
    pub requires: Vec<i64>,
    /// The rows it fills.
    pub backfill: Option<Backfill>,
    /// The way its old form is taken out of reach.
    pub contract: Option<Contract>,
    /// The way its old form is dropped.
    pub drop: Option<DropStep>,
}

/// Rows filled in chunks.
#[derive(Debug, Clone)]
pub struct Backfill {
    /// One statement. `:from` and `:upto` stand for the first and the last key of a chunk.
    pub sql: String,
    /// The table whose keys are walked.
    pub table: String,
    /// The columns of the key that is walked: unique, and indexed in that order.
    pub key: Vec<String>,
    /// A chunk is to take this long.
    pub target: Duration,
    /// True, in SQL, of a row of the table that is not filled.
    pub differs: String,
    /// It is not done as long as an old program lives: nothing but this fills what such a program writes.
    pub awaits_old: bool,
    /// Statements that run outside any transaction once all rows are filled.
    pub online: Vec<String>,
}

/// The old form out of reach.
#[derive(Debug, Clone, Default)]
pub struct Contract {
    /// Takes it out of reach, in one transaction.
    pub sql: String,
    /// Of the file.
    pub checksum: Vec<u8>,
    /// Brings it back, in one transaction.
    pub undo: String,
    /// The table whose old form it is, where no backfill names it.
    pub table: Option<String>,
    /// Constraints that PostgreSQL must have validated, as `table.constraint`.
    pub valid: Vec<String>,
    /// A sequence that moves with every write in the old form.
    pub meter: Option<String>,
    /// The time for which it must not have moved.
    pub quiet: Duration,
}

/// The old form gone for good.
#[derive(Debug, Clone)]
pub struct DropStep {
    /// Drops it, in one transaction.
    pub sql: String,
    /// Of the file.
    pub checksum: Vec<u8>,
    /// The time for which it must have been out of reach.
    pub bakes: Duration,
}

/// Every change of an application, in order.
#[derive(Debug, Clone, Default)]
pub struct History {
    changes: BTreeMap<i64, Change>,
}

/// What is wrong with the files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct HistoryErrors(pub Vec<String>);

impl History {
    /// Reads the files.
    ///
    /// # Errors
    /// When some don't belong together or lack something: all of it.
    pub fn read(sources: Sources) -> Result<Self, HistoryErrors> {
        let mut faults = Vec::new();
        let mut changes: BTreeMap<_, _> =
            sources.expand.iter().map(|file| (file.version, Change::of(file, &mut faults))).collect();
        let phases = [("backfill", sources.backfill), ("contract", sources.contract), ("drop", sources.drop)];
        for (phase, file) in phases.iter().flat_map(|(phase, files)| files.iter().map(move |file| (phase, file))) {
            let name = name_of(file);
            let mut say = |fault: String| faults.push(format!("{phase}/{name}: {fault}"));
            match changes.get_mut(&file.version) {
                None => say("there is no change of that number in expand".to_owned()),
                Some(change) if change.name != name => {
                    say(format!("the change of that number is called {}", change.name));
                }
                Some(change) => change.take(phase, file, &mut say),
            }
        }
        for change in changes.values() {
            change.check(&mut faults);
        }
        if faults.is_empty() { Ok(Self { changes }) } else { Err(HistoryErrors(faults)) }
    }

    /// The change of that number.
    pub fn get(&self, number: i64) -> Option<&Change> {
        self.changes.get(&number)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Change> {
        self.changes.values()
    }

    /// The number of the newest.
    pub fn newest(&self) -> i64 {
        self.changes.keys().next_back().copied().unwrap_or_default()
    }
}

impl Change {
    fn of(file: &Migration, faults: &mut Vec<String>) -> Self {
        let (name, header) = (name_of(file), Header::of(&file.sql));
        let mut requires = Vec::new();
        for text in header.all("requires") {
            match text.strip_prefix("contract ").and_then(|number| number.parse().ok()) {
                Some(number) if number < file.version => requires.push(number),
                _ => faults.push(format!("expand/{name}: requires: {text:?}; allowed: contract and an earlier number")),
            }
        }
        Self { number: file.version, name, requires, backfill: None, contract: None, drop: None }
    }

    /// True where it is not over with its expand.
    pub(crate) fn outlasts_expand(&self) -> bool {
        self.backfill.is_some() || self.contract.is_some()
    }

    /// The table that it is about.
    pub(crate) fn table(&self) -> Option<&str> {
        let of_contract = self.contract.as_ref().and_then(|contract| contract.table.as_deref());
        self.backfill.as_ref().map(|backfill| backfill.table.as_str()).or(of_contract)
    }

    fn take(&mut self, phase: &str, file: &Migration, say: &mut impl FnMut(String)) {
        let (sql, checksum, header) = (file.sql.to_string(), file.checksum.to_vec(), Header::of(&file.sql));
        if file.no_tx {
            say("-- no-transaction; allowed in expand alone: what runs outside a transaction is an online step"
                .to_owned());
        }
        let mut lasting = |word: &str, usual: Duration| match header.one(word) {
            None => usual,
            Some(text) => duration(text).unwrap_or_else(|| {
                say(format!("{word}: {text:?}; allowed: a number with ms, s, m or h"));
                usual
            }),
        };
        match (phase, file.migration_type) {
            ("backfill", MigrationType::Simple) => {
                let target = lasting("target", TARGET);
                if let Some(other) = header.one("awaits").filter(|awaits| *awaits != OLD_PROGRAMS) {
                    say(format!("awaits: {other:?}; allowed: {OLD_PROGRAMS}"));
                }
                self.backfill = Some(Backfill::of(sql, &header, target));
                header.faults(&["table", "key", "target", "differs", "awaits"], &["online"]).into_iter().for_each(say);
            }
            ("contract", MigrationType::ReversibleUp) => {
                let quiet = lasting("quiet", QUIET);
                let valid = header.all("valid").map(str::to_owned).collect();
                let meter = header.one("meter").map(str::to_owned);
                let undo = self.contract.take().map(|contract| contract.undo).unwrap_or_default();
                let table = header.one("table").map(str::to_owned);
                self.contract = Some(Contract { sql, checksum, undo, table, valid, meter, quiet });
                header.faults(&["table", "meter", "quiet"], &["valid"]).into_iter().for_each(say);
            }
            ("contract", MigrationType::ReversibleDown) => {
                header.faults(&[], &[]).into_iter().for_each(say);
                self.contract.get_or_insert_default().undo = sql;
            }
            ("drop", MigrationType::Simple) => {
                let bakes = lasting("bakes", BAKES);
                self.drop = Some(DropStep { sql, checksum, bakes });
                header.faults(&["bakes"], &[]).into_iter().for_each(say);
            }
            _ => say("its name ends otherwise; allowed: .up.sql and .down.sql in contract, .sql elsewhere".to_owned()),
        }
    }

    /// What is wrong with the change as a whole.
    fn check(&self, faults: &mut Vec<String>) {
        let mut say = |fault: &str| faults.push(format!("{}: {fault}", self.name));
        if let Some(backfill) = &self.backfill {
            if backfill.table.is_empty() || backfill.key.is_empty() || backfill.differs.is_empty() {
                say("its backfill must say table, key and differs");
            }
            if !backfill.sql.contains(":from") || !backfill.sql.contains(":upto") {
                say("its backfill must stay between :from and :upto");
            }
        }
        if let Some(contract) = &self.contract
            && (contract.sql.is_empty() || contract.undo.is_empty())
        {
            say("its contract must have .up.sql and .down.sql");
        }
        if self.contract.is_some() && self.table().is_none() {
            say("its contract must say which table it is about, where no backfill does");
        }
        if self.drop.is_some() && self.contract.is_none() {
            say("it drops what no contract has taken out of reach");
        }
    }
}

impl Backfill {
    fn of(sql: String, header: &Header<'_>, target: Duration) -> Self {
        let said = |word| header.one(word).unwrap_or_default().to_owned();
        let key =
            said("key").split(',').map(str::trim).filter(|column| !column.is_empty()).map(str::to_owned).collect();
        let online = header.all("online").map(str::to_owned).collect();
        let awaits_old = header.one("awaits").is_some();
        Self { table: said("table"), differs: said("differs"), key, awaits_old, online, sql, target }
    }
}

/// `NNNN_verb_noun`, as the file is called.
pub(crate) fn name_of(migration: &Migration) -> String {
    format!("{:04}_{}", migration.version, migration.description.replace(' ', "_"))
}
