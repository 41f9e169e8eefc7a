//! What happens if it fails at this very line: real processes on real servers are stopped at one site of their I/O, a
//! real fault is made there, and what clients saw is compared with what is left.
//!
//! A [`Case`] is a site, a position and an action. [`run`] starts a service and a worker that ask at a socket where they
//! are to stop ([`gavel_runtime::boundary`]), puts load through the whole path ([`scenario`]), makes the fault when the
//! site is reached, heals, waits until it is quiet, and checks what must always hold ([`check`]).
pub mod case;
pub mod check;
pub mod entry;
pub mod fleet;
pub mod history;
pub mod listener;
pub mod page;
pub mod run;
pub mod scenario;

pub use case::{Action, Case};
pub use run::{Outcome, discover, run};
