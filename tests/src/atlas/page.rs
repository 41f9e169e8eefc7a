//! The atlas as a document: of each site, what is done there, and which faults it has stood.
use super::{
    case::{Action, Site},
    entry::{Entry, name_of, statement},
};
use gavel_runtime::boundary::{Position, Server};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    path::Path,
};

const OPENING: &str = "\
# What happens if it fails at this very line

Written by `cargo xtask atlas --all --write`: every site where a process of Gavel's touches PostgreSQL, RabbitMQ or
Redis while items are published, bid on, cancelled, sold, counted and shown; and what was done to it exactly there. A
case is real: a service and a worker, started for it, are stopped at the site, the fault is made, and clients repeat
their calls until they know what became of them. It *holds* where after that every acknowledged bid is in the ledger
once and nothing else is, prices only rose, every event was told, statistics and the read model are what the ledger says,
no job is dead, no transaction is left open, and nobody was restarted by hand.

`cargo xtask atlas --site place_bid.commit --position after --action reset` runs one of them and tells its story.

- **before**: nothing of it is done. **after**: it is done, and nobody has heard of it.
- **kill**: the process is killed, as by `kill -9`, and another is started. **reset**: every connection to that server is
  cut; *after*, once the server has answered, and before the answer arrives.
- **in recovery**: nobody comes by unless something has failed before; no case begins there yet.

A site is called by its handler and by what it does; a statement by the beginning of its name in `.sqlx`.
";
/// Of a statement, so much is shown.
const SHOWN: usize = 72;

/// All of it: of every site that any run came by.
pub fn page(root: &Path, entries: &[Entry], met: &BTreeSet<Site>) -> String {
    let mut sites: BTreeMap<Site, Vec<&Entry>> = met.iter().map(|site| (site.clone(), Vec::new())).collect();
    for entry in entries {
        let site = Site { name: entry.case.site.clone(), server: entry.server };
        sites.entry(site).or_default().push(entry);
    }
    let (mut text, mut handler) = (OPENING.to_owned(), String::new());
    for (site, entries) in &sites {
        let (now, operation) = site.name.split_once('.').unwrap_or((&site.name, ""));
        if now != handler {
            now.clone_into(&mut handler);
            let _ = write!(
                text,
                "\n## {handler}\n\n| site | what | before: kill | reset | after: kill | reset |\n\
                 | --- | --- | --- | --- | --- | --- |\n"
            );
        }
        let what = statement(root, site).map_or_else(|| described(site).to_owned(), |text| shown(&text));
        let cells = [Position::Before, Position::After].into_iter().flat_map(|position| {
            Action::ALL.map(|action| match site.excludes(position, action) {
                Some(why) => format!("– ({why})"),
                None => verdict(entries, position, action).to_owned(),
            })
        });
        let cells: Vec<_> = cells.collect();
        let _ = writeln!(text, "| {operation} | {what} | {} |", cells.join(" | "));
    }
    let _ = writeln!(text, "\n{} cases at {} sites.", entries.len(), sites.len());
    text
}

fn verdict(entries: &[&Entry], position: Position, action: Action) -> &'static str {
    let found = entries.iter().find(|entry| entry.case.position == position && entry.case.action == action);
    match found {
        Some(entry) if entry.holds => "holds",
        Some(_) => "**fails**",
        None => "in recovery",
    }
}

fn described(site: &Site) -> &'static str {
    match site.server {
        Server::Database if ["begin", "commit", "rollback"].contains(&site.operation()) => "the transaction",
        Server::Database => "a statement that is written at run time",
        server => name_of(server),
    }
}

/// On one line of a table.
fn shown(statement: &str) -> String {
    let line = statement.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    let cut: String = line.chars().take(SHOWN).collect();
    if cut.len() < line.len() { format!("`{cut}…`") } else { format!("`{line}`") }
}
