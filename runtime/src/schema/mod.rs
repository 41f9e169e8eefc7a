//! Changing the schema while everybody works: migrations applied, rows filled in chunks, old forms taken away once it is
//! proved that nobody needs them.
pub mod backfill;
pub mod rights;

mod contract;
mod guards;
mod indexes;
mod ledger;
mod migrate;
mod presence;
mod session;
mod status;

pub use contract::{Asked, Outcome, Transition, transition};
pub use guards::Guard;
pub use migrate::{Gap, create_database, gaps, migrate, run_statements};
pub use presence::Living;
pub use session::while_nobody_works;
pub use status::{Status, status};

pub(crate) use ledger::{contracted_above, phases};
pub(crate) use presence::{Beat, Presence, outlived, sample_meters};
