//! Names that are not known, and the nearest that is.

/// Of the known names the one that is most like it, where they are more alike than that, from 0 to 1.
pub fn nearest<'k>(name: &str, known: &'k [impl AsRef<str>], alike: f64) -> Option<&'k str> {
    let known = known.iter().map(AsRef::as_ref).map(|known| (strsim::jaro_winkler(name, known), known));
    known.max_by(|(a, _), (b, _)| a.total_cmp(b)).filter(|(likeness, _)| *likeness > alike).map(|(_, known)| known)
}
