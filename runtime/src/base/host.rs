//! The machine that this runs on.

/// Its name.
pub fn name() -> String {
    gethostname::gethostname().to_string_lossy().into_owned()
}
