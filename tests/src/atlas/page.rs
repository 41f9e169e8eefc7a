//! The atlas as a document: of each handler its way as a picture, and of each site which faults it has stood.
use super::{
    case::{Action, Case, Site},
    entry::{Entry, name_of},
    kept::{Atlas, Place},
    label::label,
    source::statement,
};
use gavel_runtime::boundary::{Position, Server};
use std::{fmt::Write, path::Path};

const OPENING: &str = "\
# What happens if it fails at this very line

Written by `cargo xtask atlas --all --write`: every site where a process of Gavel's touches PostgreSQL, RabbitMQ,
Redis or a client while items are published, bid on, cancelled, sold, counted, listed, shown and watched and the read
model is made anew, while rows of before are filled (`run_backfill_chunk`, `run_online_step`), or while an operator pauses
a queue, and looks at, tries again and discards jobs and messages; and what was done to it exactly there. A case is real: a service and a worker, started for it, are stopped at the site, the fault is made, and
clients repeat their calls until they know what became of them. It *holds* where after that every acknowledged bid is in
the ledger once and nothing else is, prices only rose, every event was told, statistics and the read model are what the
ledger says, no job is dead, no transaction is left open, and nobody was restarted by hand. An operator has to do
something after two faults alone: where queues were deleted, `bidctl rebuild`; where a full disk has stopped a backfill,
`bidctl schema backfill resume`.

`cargo xtask atlas --site place_bid.commit --position after --action reset` runs one of them and tells its story.
[atlas.html](atlas/atlas.html) is for browsing, [entries.json](atlas/entries.json) for programs: it says of each case
what clients saw, which was seen in its run, and what heals its kind of fault, which the case shows where it holds.

- **before**: nothing of it is done. **after**: it is done, and nobody has heard of it. In the middle of it is no third: a
  statement, a frame, a command is done as a whole or not at all.
- **kill**: the process is killed, as by `kill -9`, and another is started. **reset**: every connection to that server is
  cut; *after*, once the server has answered, and before the answer arrives. **terminate**: PostgreSQL ends every session
  of the programs, and says so. **silence**: nothing goes through to that server for longer than anybody waits, and comes
  late then. **away**: for five seconds connections to that server are refused, and those that were there are cut.
  **restart**: the server is stopped and started; PostgreSQL as after a crash, Redis without anything that it held.
  **alarm**: for five seconds RabbitMQ's memory alarm is raised, and it reads nothing from publishers. **read-only**: for
  as long Redis takes no writes. **full-disk**: for as long PostgreSQL's disk has no room. **delete-queues**: somebody
  deletes the consumers' queues, with what waits in them, and an operator makes statistics and the read model anew.
  **freeze**: the process stands still until another has its place and
  its leases have run out; then it goes on, with what it was doing.
- **in recovery**: a process that was started where another was killed, on the way of a bid, of an event, of statistics
  or of an item's end, is stopped again. Where nobody comes by but in recovery, whoever recovers is stopped there, after a
  fault that is named. – : nobody comes by but after another fault, or not on those ways.

On these ways each site is stopped at its second, third and fourth time as well.

A picture has the sites in the order in which somebody came by first. A site is called by its handler and by what it
does; a statement by the beginning of its name in `.sqlx`.
";
/// Of a statement, so much is shown.
const SHOWN: usize = 72;

/// All of it.
pub fn page(root: &Path, atlas: &Atlas) -> String {
    let mut text = OPENING.to_owned();
    for (handler, places) in atlas.handlers() {
        let _ = write!(text, "\n## {handler}\n{}", picture(root, &places));
        text.push_str(
            "\n| site | what | it holds, before | it holds, after | in recovery |\n\
             | --- | --- | --- | --- | --- |\n",
        );
        for Place { site, after: first, .. } in places {
            let what = statement(root, site).map_or_else(|| described(site).to_owned(), |text| shown(&text));
            let entries = atlas.cases_of(site);
            let [before, after] = [Position::Before, Position::After].map(|at| verdicts(site, &entries, at));
            let named = first.as_ref().map(|first| format!(" (after {first})")).unwrap_or_default();
            let recovery = recovery(&entries);
            let _ = writeln!(text, "| {} | {what} | {before} | {after} | {recovery}{named} |", site.operation());
        }
    }
    let _ = writeln!(text, "\n{} cases at {} sites.", atlas.cases.len(), atlas.sites.len());
    text
}

/// The way, from left to right.
fn picture(root: &Path, places: &[&Place]) -> String {
    let way: Vec<_> = places.iter().filter(|place| !place.in_recovery).collect();
    if way.len() < 2 {
        return String::new();
    }
    let mut text = "\n```mermaid\nflowchart LR\n".to_owned();
    for (nth, place) in way.iter().enumerate() {
        let arrow = if nth == 0 { String::new() } else { format!("s{} --> ", nth - 1) };
        let shape = match place.site.server {
            Server::Database => ("[(", ")]"),
            Server::Broker => ("([", "])"),
            Server::Cache => ("{{", "}}"),
            Server::Client => ("[", "]"),
        };
        let _ = writeln!(
            text,
            "  {arrow}s{nth}{}\"{}\"{}",
            shape.0,
            label(&place.site, statement(root, &place.site).as_deref()),
            shape.1
        );
    }
    text + "```\n"
}

/// What was done there and was stood, what was not stood, and what makes no sense there.
fn verdicts(site: &Site, entries: &[&Entry], position: Position) -> String {
    let of = |action: Action| {
        entries.iter().find(|one| {
            let Case { position: at, action: made, hit, first, .. } = &one.case;
            *at == position && *made == action && *hit == 1 && first.is_none()
        })
    };
    let all = Action::of(site.server, position);
    if all.iter().all(|action| of(*action).is_none()) {
        return "–".to_owned();
    }
    let told = all.iter().filter_map(|action| match (site.excludes(position, *action), of(*action)) {
        (Some(why), _) => Some(format!("no {action}: {why}")),
        (None, Some(entry)) if entry.holds() => Some(action.to_string()),
        (None, Some(_)) => Some(format!("**not {action}**")),
        (None, None) => None,
    });
    told.collect::<Vec<_>>().join(", ")
}

/// What was done there to a process that recovered from another fault.
fn recovery(entries: &[&Entry]) -> String {
    let later = entries.iter().filter(|one| one.case.first.is_some());
    let told = later.map(|entry| {
        let Case { position, action, .. } = &entry.case;
        if entry.holds() { format!("{position}: {action}") } else { format!("**not {position}: {action}**") }
    });
    let told: Vec<_> = told.collect();
    if told.is_empty() { "–".to_owned() } else { told.join(", ") }
}

/// Of a site that no checked statement names.
pub(super) fn described(site: &Site) -> &'static str {
    match site.server {
        Server::Database if ["begin", "commit", "rollback"].contains(&site.operation()) => "the transaction",
        Server::Database if ["listen", "hear"].contains(&site.operation()) => "what others notify of",
        Server::Database => "a statement that is written at run time",
        Server::Client => "a client's call",
        server => name_of(server),
    }
}

/// On one line of a table.
fn shown(statement: &str) -> String {
    let line = statement.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    let cut: String = line.chars().take(SHOWN).collect();
    if cut.len() < line.len() { format!("`{cut}…`") } else { format!("`{line}`") }
}
