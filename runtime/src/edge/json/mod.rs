//! ProtoJSON, read strictly: <https://protobuf.dev/programming-guides/json/>.
//!
//! Whoever writes JSON writes it by hand, and what is misread acts: an amount that a floating-point number has rounded,
//! one of two amounts of which the last wins, a field that does not exist and was meant to hold something back. So
//! every value is looked at as it was written, refused by the name of its field, and handed on in a form that can't be
//! misread.
mod number;
mod scalar;

use crate::base::names::nearest;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use std::{collections::HashSet, fmt};

/// Messages within messages, at most.
const MAX_DEPTH: usize = 64;
/// A name that is further from all that there are is no misspelling of one of them.
const ALIKE: f64 = 0.75;

/// What is wrong, and where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    path: String,
    what: String,
}

impl Wrong {
    fn at(path: &str, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), what: what.into() }
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.what) } else { write!(f, "{}: {}", self.path, self.what) }
    }
}

/// The same message in JSON without anything that could be misread.
pub(super) fn checked(text: &[u8], message: &MessageDescriptor) -> Result<String, Wrong> {
    let raw: &RawValue = serde_json::from_slice(text).map_err(|error| Wrong::at("", error.to_string()))?;
    let mut out = String::with_capacity(text.len());
    Reader { out: &mut out, depth: 0 }.message(raw, message, "")?;
    Ok(out)
}

struct Reader<'o> {
    out: &'o mut String,
    depth: usize,
}

impl Reader<'_> {
    fn message(&mut self, raw: &RawValue, message: &MessageDescriptor, path: &str) -> Result<(), Wrong> {
        if message.full_name().starts_with("google.protobuf.") {
            return self.well_known(raw, message, path);
        }
        if self.depth == MAX_DEPTH {
            return Err(Wrong::at(path, format!("more than {MAX_DEPTH} messages within each other")));
        }
        self.depth += 1;
        let (mut seen, mut is_first) = (HashSet::new(), true);
        for (name, value) in entries(raw, path)? {
            let field = field(message, &name, path)?;
            let path = joined(path, field.json_name());
            if !seen.insert(field.number()) {
                return Err(Wrong::at(&path, "is given twice"));
            }
            if value.get() == "null" {
                continue;
            }
            self.key(field.json_name(), &mut is_first);
            self.field(value, &field, &path)?;
        }
        self.end(is_first);
        self.depth -= 1;
        Ok(())
    }

    fn field(&mut self, raw: &RawValue, field: &FieldDescriptor, path: &str) -> Result<(), Wrong> {
        match field.kind() {
            Kind::Message(entry) if field.is_map() => self.map(raw, &entry, path),
            kind if field.is_list() => self.list(raw, &kind, path),
            kind => self.value(raw, &kind, path),
        }
    }

    fn list(&mut self, raw: &RawValue, kind: &Kind, path: &str) -> Result<(), Wrong> {
        let entries: Vec<&RawValue> =
            serde_json::from_str(raw.get()).map_err(|_| Wrong::at(path, "allowed: a list"))?;
        self.out.push('[');
        for (place, entry) in entries.into_iter().enumerate() {
            if place > 0 {
                self.out.push(',');
            }
            self.value(entry, kind, &format!("{path}[{place}]"))?;
        }
        self.out.push(']');
        Ok(())
    }

    fn map(&mut self, raw: &RawValue, entry: &MessageDescriptor, path: &str) -> Result<(), Wrong> {
        let (mut seen, mut is_first) = (HashSet::new(), true);
        let kind = entry.map_entry_value_field().kind();
        for (key, value) in entries(raw, path)? {
            let path = format!("{path}[{key:?}]");
            self.key(&key, &mut is_first);
            if !seen.insert(key) {
                return Err(Wrong::at(&path, "is given twice"));
            }
            self.value(value, &kind, &path)?;
        }
        self.end(is_first);
        Ok(())
    }

    fn value(&mut self, raw: &RawValue, kind: &Kind, path: &str) -> Result<(), Wrong> {
        match kind {
            Kind::Message(message) => self.message(raw, message, path),
            scalar => {
                let checked = scalar::checked(raw.get(), scalar).map_err(|what| Wrong::at(path, what))?;
                self.out.push_str(&checked);
                Ok(())
            }
        }
    }

    /// Types with a form of their own in JSON. Times are looked at here: a second that there is not would become
    /// another one.
    fn well_known(&mut self, raw: &RawValue, message: &MessageDescriptor, path: &str) -> Result<(), Wrong> {
        let checked = match message.full_name() {
            "google.protobuf.Timestamp" => scalar::check_time(raw.get()),
            "google.protobuf.Duration" => scalar::check_duration(raw.get()),
            _ => Ok(()),
        };
        checked.map_err(|what| Wrong::at(path, what))?;
        self.out.push_str(raw.get());
        Ok(())
    }

    fn key(&mut self, name: &str, is_first: &mut bool) {
        self.out.push(if *is_first { '{' } else { ',' });
        *is_first = false;
        self.out.push_str(&serde_json::Value::from(name).to_string());
        self.out.push(':');
    }

    fn end(&mut self, is_empty: bool) {
        self.out.push_str(if is_empty { "{}" } else { "}" });
    }
}

fn joined(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The field of that name, in either of its spellings.
fn field(message: &MessageDescriptor, name: &str, path: &str) -> Result<FieldDescriptor, Wrong> {
    let found = message.get_field_by_json_name(name).or_else(|| message.get_field_by_name(name));
    found.ok_or_else(|| {
        let names: Vec<_> = message.fields().map(|field| field.json_name().to_owned()).collect();
        let hint = nearest(name, &names, ALIKE).map(|name| format!(", perhaps {name}?")).unwrap_or_default();
        let shown: String = name.chars().take(64).collect();
        let (known, of) = (names.join(", "), message.full_name());
        Wrong::at(path, format!("there is no field {shown:?} in {of}{hint}; allowed: {known}"))
    })
}

fn entries<'a>(raw: &'a RawValue, path: &str) -> Result<Vec<(String, &'a RawValue)>, Wrong> {
    let entries: Entries<'a> = serde_json::from_str(raw.get()).map_err(|_| Wrong::at(path, "allowed: an object"))?;
    Ok(entries.0)
}

/// An object as it was written: in its order, with whatever is there twice.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries<'de>, A::Error> {
                let mut entries = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    entries.push((name, value));
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Each)
    }
}
