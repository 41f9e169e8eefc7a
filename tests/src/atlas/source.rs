//! What is done at a site, and where that stands in the code.
use super::case::Site;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where handlers and adapters are.
const ROOMS: [&str; 2] = ["handlers", "runtime/src"];

/// The statement that a site is named by, as `.sqlx` has it; none for other sites, and for statements that are
/// written at run time.
pub fn statement(root: &Path, site: &Site) -> Option<String> {
    let begin = format!("query-{}", site.operation());
    let files = fs::read_dir(root.join(".sqlx")).ok()?.filter_map(Result::ok);
    let file = files.map(|file| file.path()).find(|path| {
        path.file_name()
            .and_then(|name| name.to_str())
            .is_some_and(|name| site.operation().len() == 12 && name.starts_with(&begin))
    })?;
    let prepared: serde_json::Value = serde_json::from_str(&fs::read_to_string(file).ok()?).ok()?;
    let lines = prepared["query"].as_str()?.lines().map(str::trim).collect::<Vec<_>>();
    Some(lines.join("\n"))
}

/// A site in the code.
pub(super) struct Source {
    /// File and line, from the root; none where it is not found.
    pub(super) at: Option<String>,
    /// The statement, or the line that does it.
    pub(super) text: String,
    /// The statement, and so what is asked.
    pub(super) is_statement: bool,
}

impl Source {
    /// A statement stands where its text does. What is called by a verb is done by the handler's own room, where that
    /// calls it so; else by the line of an adapter that names it.
    pub(super) fn of(root: &Path, site: &Site) -> Self {
        let files = ROOMS.iter().flat_map(|room| files(&root.join(room))).collect::<Vec<_>>();
        if let Some(text) = statement(root, site) {
            // Several may begin alike: it is the one that has all lines.
            let first = text.lines().next().unwrap_or_default();
            let mut found = files.iter().filter(|(_, code)| text.lines().all(|line| code.contains(line)));
            let at = found.find_map(|file| line_with(file, first)).map(|(at, _)| at);
            return Self { at: at.map(|at| relative(root, &at)), text, is_statement: true };
        }
        let (called, name) = (format!(".{}(", site.operation()), format!("\"{}\"", site.operation()));
        let mut own = files.iter().filter(|(path, _)| is_room_of(path, site.handler()));
        let found = own.find_map(|file| line_with(file, &called));
        let found = found.or_else(|| {
            let adapters: Vec<_> = files.iter().filter(|(path, _)| path.starts_with(root.join("runtime"))).collect();
            // What passes on a name comes before what marks the boundary, which each adapter has once.
            let named = ["run", "ask", "does"].map(|by| format!("{by}({name}"));
            let named = named.iter().chain([&name]);
            named.flat_map(|name| adapters.iter().filter_map(move |file| line_with(file, name))).next()
        });
        let (at, text) = found.unzip();
        Self { at: at.map(|at| relative(root, &at)), text: text.unwrap_or_default(), is_statement: false }
    }
}

/// A file of that name, or one in a directory of that name.
fn is_room_of(path: &Path, handler: &str) -> bool {
    path.iter().any(|part| part == handler) || path.file_stem().is_some_and(|stem| stem == handler)
}

fn relative(root: &Path, at: &str) -> String {
    at.strip_prefix(&format!("{}/", root.display())).unwrap_or(at).to_owned()
}

/// The first line that has this in it, and is no comment: where, and the line.
fn line_with((path, code): &(PathBuf, String), text: &str) -> Option<(String, String)> {
    let is_it = |line: &&str| line.contains(text) && !line.trim_start().starts_with("//");
    let (number, line) = code.lines().enumerate().find(|(_, line)| is_it(line))?;
    Some((format!("{}:{}", path.display(), number + 1), line.trim().to_owned()))
}

/// All Rust there, in the order of their names: adapters' own files come before what is built on them.
fn files(dir: &Path) -> Vec<(PathBuf, String)> {
    let mut entries: Vec<_> = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    let of = |path: PathBuf| {
        if path.is_dir() {
            files(&path)
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            fs::read_to_string(&path).map(|code| (path, code)).into_iter().collect()
        } else {
            Vec::new()
        }
    };
    entries.into_iter().flat_map(|entry| of(entry.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gavel_runtime::boundary::Server;

    fn source(name: &str, server: Server) -> Source {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        Source::of(&root, &Site { name: name.to_owned(), server })
    }

    #[test]
    fn a_verb_stands_where_its_handler_calls_it_or_where_an_adapter_names_it() {
        for (site, server, file, line) in [
            ("place_bid.commit", Server::Database, "runtime/src/postgres/tx.rs:", "COMMIT"),
            ("declare.open_channel", Server::Broker, "runtime/src/rabbitmq/", "open_channel"),
            ("presence.commit", Server::Database, "runtime/src/schema/presence.rs:", "tx.commit()"),
            ("apply_user_stats.ack", Server::Broker, "runtime/src/rabbitmq/channel.rs:", "basic_ack"),
            ("get_item.answer", Server::Client, "runtime/src/triggers/rpc/serve.rs:", "call(incoming"),
        ] {
            let Source { at, text, .. } = source(site, server);
            assert!(at.as_ref().is_some_and(|at| at.starts_with(file)), "{site}: {at:?}");
            assert!(text.contains(line), "{site}: {text}");
        }
    }
}
