//! A change of the schema rehearsed with the real program of the last release: both versions side by side under load,
//! rows filled, the old form out of reach, back, and dropped; and the proof that nobody noticed.
mod filling;
mod load;
mod play;
mod report;
mod rows;
mod stage;

pub(crate) use load::{Load, took_ms};
pub(crate) use play::run;
pub(crate) use rows::{ITEMS, write as old_rows, write_items};
pub(crate) use stage::Stage;
