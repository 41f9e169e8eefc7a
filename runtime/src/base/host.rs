//! The machine that this runs on.
use std::fs;

/// Its name; `?` where it can't be read.
pub fn name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "?".to_owned(), |name| name.trim().to_owned())
}
