//! Bugs on purpose: each is what somebody writes who has not thought of one thing, and a test or a case of the atlas
//! finds it. One that nothing finds is a missing test.
pub mod bugs;
pub mod rules;
pub mod trial;

use gavel_runtime::boundary::planted::Slip;

/// What is otherwise than it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Statements and scripts with the first text in them have the second in its place.
    Said(&'static str, &'static str),
    /// What was done before a statement with this text in it is committed before it.
    CommitBefore(&'static str),
    /// A statement that begins like this is done in a session of its own, whatever becomes of the transaction.
    Autonomous(&'static str),
    /// What is published counts as confirmed at once.
    ConfirmNotAwaited,
    /// What is delivered counts as acknowledged at once.
    TakenOnDelivery,
    /// A file of the rules has the second text in the place of the first.
    Rule(&'static str, &'static str, &'static str),
}

impl Change {
    /// As a program is told; rules are built anew instead.
    fn slip(self) -> Option<Slip> {
        Some(match self {
            Self::Said(said, instead) => Slip::Text { said: said.to_owned(), instead: instead.to_owned() },
            Self::CommitBefore(statement) => Slip::CommitBefore(statement.to_owned()),
            Self::Autonomous(statement) => Slip::Autonomous(statement.to_owned()),
            Self::ConfirmNotAwaited => Slip::ConfirmNotAwaited,
            Self::TakenOnDelivery => Slip::TakenOnDelivery,
            Self::Rule(..) => return None,
        })
    }
}

/// What finds a bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Catch {
    /// A test in tests/tests/it.
    Test(&'static str),
    /// A case of the atlas.
    Case(&'static str),
    /// A test of the rules.
    Rule(&'static str),
}

/// One bug.
#[derive(Debug, Clone, Copy)]
pub struct Bug {
    /// What it is called.
    pub name: &'static str,
    /// What whoever wrote it had not thought of.
    pub forgotten: &'static str,
    /// What is otherwise.
    pub changes: &'static [Change],
    /// What finds it.
    pub caught_by: Catch,
    /// What is said then.
    pub saying: &'static str,
}

impl Bug {
    /// As the programs are told.
    pub fn slips(&self) -> Vec<Slip> {
        self.changes.iter().filter_map(|change| change.slip()).collect()
    }
}
