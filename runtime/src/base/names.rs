//! Names that are not known, and the nearest that is.

/// Of the known names the one that is most like it, in whatever case, where they are more alike than that, from 0 to 1.
pub fn nearest<'k>(name: &str, known: &'k [impl AsRef<str>], alike: f64) -> Option<&'k str> {
    let name = name.to_lowercase();
    let likeness = |known: &str| strsim::jaro_winkler(&name, &known.to_lowercase());
    let known = known.iter().map(AsRef::as_ref).map(|known| (likeness(known), known));
    known.max_by(|(a, _), (b, _)| a.total_cmp(b)).filter(|(likeness, _)| *likeness > alike).map(|(_, known)| known)
}
