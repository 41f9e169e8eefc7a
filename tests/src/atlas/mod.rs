//! What happens if it fails at this very line: real processes on real servers are stopped at one site of their I/O, a
//! real fault is made there, and what clients saw is compared with what is left.
//!
//! A [`Case`] is a site, a position and an action. [`run()`] starts a service and a worker that ask at a socket where they
//! are to stop ([`gavel_runtime::boundary`]), puts load through the whole path ([`scenario`]), makes the fault when the
//! site is reached, heals, waits until it is quiet, and checks what must always hold ([`check`]).
pub mod attack;
pub mod browse;
pub mod case;
pub mod check;
mod choose;
pub mod entry;
pub mod filling;
pub mod fleet;
pub mod history;
pub mod kept;
mod label;
pub mod listener;
pub mod many;
pub mod operating;
pub mod page;
pub mod run;
pub mod scenario;
pub mod source;
pub mod watcher;

pub use attack::Outcome;
pub use case::{Action, Case};
pub use kept::Atlas;
pub use run::{discover, discover_after, run};

use std::{fs, path::Path};

/// The documents that are made of what is kept: where, from the root, and what.
pub fn documents(root: &Path, atlas: &Atlas) -> [(&'static str, String); 2] {
    [("docs/atlas.md", page::page(root, atlas)), ("docs/atlas/atlas.html", browse::browse(root, atlas))]
}

/// Writes them.
///
/// # Errors
/// Where that can't be done.
pub fn write(root: &Path, atlas: &Atlas) -> anyhow::Result<()> {
    for (name, text) in documents(root, atlas) {
        fs::write(root.join(name), text)?;
    }
    Ok(())
}
