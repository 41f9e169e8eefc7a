//! The atlas as a page to browse: ways as pictures, and under each site its cases, with the command that runs each.
use super::{
    entry::{Entry, name_of},
    kept::{Atlas, Place},
    label::label,
    page::described,
    source::statement,
};
use gavel_runtime::boundary::Server;
use std::{fmt::Write, path::Path};

const FRAME: &str = include_str!("browse.html");

/// All of it, in one file.
pub fn browse(root: &Path, atlas: &Atlas) -> String {
    let (mut names, mut sections) = (String::new(), String::new());
    for (handler, places) in atlas.handlers() {
        let _ = write!(names, "<a href=\"#{handler}\">{handler}</a>");
        let _ = write!(sections, "<section id=\"{handler}\"><h2>{handler}</h2><ol>");
        for place in places {
            sections.push_str(&place_in(root, atlas, place));
        }
        sections.push_str("</ol></section>\n");
    }
    let count = format!("{} cases at {} sites", atlas.cases.len(), atlas.sites.len());
    FRAME.replace("<!-- names -->", &names).replace("<!-- sections -->", &sections).replace("<!-- count -->", &count)
}

fn place_in(root: &Path, atlas: &Atlas, Place { site, in_recovery, .. }: &Place) -> String {
    let kind = match site.server {
        Server::Database => "database",
        Server::Broker => "broker",
        Server::Cache => "cache",
        Server::Client => "client",
    };
    let recovery = if *in_recovery { " recovery" } else { "" };
    let statement = statement(root, site);
    let cases = atlas.cases_of(site).into_iter().map(case_of).collect::<String>();
    let none = if cases.is_empty() { "<p>Met after a fault alone; no case begins here yet.</p>" } else { "" };
    format!(
        "<li class=\"{kind}{recovery}\"><details><summary>{}</summary><p>{} · <code>{}</code></p><pre>{}</pre>{none}{cases}</details></li>",
        escaped(&label(site, statement.as_deref())),
        name_of(site.server),
        escaped(&site.name),
        escaped(statement.as_deref().unwrap_or_else(|| described(site))),
    )
}

fn case_of(entry: &Entry) -> String {
    let verdict = if entry.holds() { "holds" } else { "fails" };
    format!(
        "<div class=\"case {verdict}\"><b>{} · {}</b> <i>{verdict}</i><br>Clients saw {}. Left was {}. Healed by {}. An \
         operator does {}.<pre>cargo xtask atlas {}</pre></div>",
        entry.case.position,
        entry.case.action,
        escaped(&entry.client),
        escaped(&entry.survived),
        escaped(&entry.healed_by),
        escaped(&entry.operator),
        escaped(&entry.case.to_string()),
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
