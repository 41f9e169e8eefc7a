//! Changes of the schema, as their files describe them: numbered, each with up to four phases.
//!
//! A change `NNNN_verb_noun` **expands** the schema by what old programs tolerate, **backfills** rows in chunks beside
//! everybody's work, **contracts** by taking the old form out of reach, which can be reversed, and **drops** it for
//! good. Each phase is a file of that name in a directory of its own; a phase that a change does not need has no file.
mod evolution;
mod header;
mod history;
mod phase;

pub use header::faults_of_expand;
pub use history::{Backfill, Change, Contract, DropStep, History, HistoryErrors, Sources};
pub use phase::Phase;

pub(crate) use evolution::Evolution;
pub(crate) use history::name_of;
pub(crate) use phase::{Known, Phases};
