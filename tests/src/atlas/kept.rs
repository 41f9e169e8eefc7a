//! What is kept of a whole run: every site that a process came by, and every case. Nothing in it differs from run to run
//! but what a run found out: no times, no lines of code.
use super::{
    case::{First, Site},
    entry::Entry,
    source::statement,
};
use anyhow::Context;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

/// Where, from the root.
pub const FILE: &str = "docs/atlas/entries.json";

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Atlas {
    /// In the order in which somebody comes by when nothing fails; then those that are met in recovery alone.
    pub sites: Vec<Place>,
    /// In the order of their sites.
    pub cases: Vec<Entry>,
}

/// Where anybody came by, and after which fault, where it was after one.
pub type Met = BTreeMap<Site, Option<First>>;

/// A site, and whether anybody comes by when nothing fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Which.
    #[serde(flatten)]
    pub site: Site,
    /// Only after something has failed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_recovery: bool,
    /// A fault after which somebody comes by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<First>,
    /// Its statement is in `.sqlx`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub checked: bool,
}

impl Atlas {
    /// Of a run: where somebody came by without a fault, all that anybody came by, after which fault if that is known,
    /// and what the cases came to.
    pub fn of(root: &Path, sites: &[Site], met: &Met, mut cases: Vec<Entry>) -> Self {
        let is_checked = |site: &Site| statement(root, site).is_some();
        let usual = sites.iter().map(|site| Place {
            checked: is_checked(site),
            site: site.clone(),
            in_recovery: false,
            after: None,
        });
        let later = met.iter().filter(|(site, _)| !sites.contains(site)).map(|(site, after)| Place {
            checked: is_checked(site),
            site: site.clone(),
            in_recovery: true,
            after: after.clone(),
        });
        cases.sort_by(|one, other| one.case.cmp(&other.case));
        Self { sites: usual.chain(later).collect(), cases }
    }

    /// What was kept last.
    ///
    /// # Errors
    /// Where it can't be read.
    pub fn read(root: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(root.join(FILE)).context(FILE)?;
        let whole: serde_json::Value = serde_json::from_str(&text).context(FILE)?;
        Ok(Self { sites: list(&whole["sites"])?, cases: list(&whole["cases"])? })
    }

    /// Keeps it: a line for each site and each case, so that a difference can be read.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn write(&self, root: &Path) -> anyhow::Result<()> {
        let mut text = "{\n".to_owned();
        write!(text, "\"sites\": [\n{}\n],\n", lines(&self.sites)?)?;
        write!(text, "\"cases\": [\n{}\n]\n}}\n", lines(&self.cases)?)?;
        fs::create_dir_all(root.join(FILE).parent().context("a directory")?)?;
        Ok(fs::write(root.join(FILE), text)?)
    }

    /// Sites whose statement nobody has any more.
    pub fn gone(&self, root: &Path) -> Vec<&str> {
        let gone = |place: &&Place| place.checked && statement(root, &place.site).is_none();
        self.sites.iter().filter(gone).map(|place| place.site.name.as_str()).collect()
    }

    /// Leaves those out, and their cases.
    pub fn forget_gone(&mut self, root: &Path) {
        let gone: Vec<_> = self.gone(root).into_iter().map(ToOwned::to_owned).collect();
        self.sites.retain(|place| !gone.contains(&place.site.name));
        self.cases.retain(|entry| !gone.contains(&entry.case.site));
    }

    /// Handlers, each with its sites in the order of its way, in the order of their names.
    pub fn handlers(&self) -> Vec<(&str, Vec<&Place>)> {
        let mut names: Vec<_> = self.sites.iter().map(|place| place.site.handler()).collect();
        names.sort_unstable();
        names.dedup();
        let of = |name| self.sites.iter().filter(|place| place.site.handler() == name).collect();
        names.into_iter().map(|name| (name, of(name))).collect()
    }

    /// The cases of a site.
    pub fn cases_of(&self, site: &Site) -> Vec<&Entry> {
        self.cases.iter().filter(|entry| entry.case.site == site.name).collect()
    }
}

fn list<T: DeserializeOwned>(value: &serde_json::Value) -> anyhow::Result<Vec<T>> {
    serde_json::from_value(value.clone()).context(FILE)
}

fn lines(all: &[impl Serialize]) -> anyhow::Result<String> {
    let lines: Vec<_> = all.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    Ok(lines.join(",\n"))
}
