//! Names that are not known, and the nearest that are.
use gavel_runtime::names::nearest;

/// Names less alike than this are not each other's misspelling.
const ALIKE: f64 = 0.7;

/// Returns what is said of a name that is not among those: the nearest, and all of them.
pub(crate) fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    let hint = nearest(name, known, ALIKE).map(|nearest| format!(", perhaps {nearest}?")).unwrap_or_default();
    format!("there is no {what} {name:?}{hint}; allowed: {}", known.join(", "))
}

#[cfg(test)]
mod tests {
    use super::unknown;

    #[test]
    fn the_nearest_name_is_suggested_where_one_is_near() {
        let known = ["close_item", "redeliver_message"];
        assert!(unknown("queue", "close_itm", &known).contains("perhaps close_item?"));
        assert!(!unknown("queue", "xyz", &known).contains("perhaps"));
    }
}
