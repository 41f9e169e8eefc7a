//! Runs cases of the atlas on the servers of this run. Started by `cargo xtask atlas`, whose arguments it takes.
use gavel_runtime::boundary::{Position, Server};
use gavel_tests::atlas::{
    Case,
    attack::lacking,
    case::Site,
    entry::{keep, story},
    kept::{Atlas, FILE, Place},
    many::Many,
    run,
    source::statement,
    write,
};
use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Cases side by side, where nobody says how many.
const AT_A_TIME: usize = 4;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let asked = Asked { arguments: &arguments };
    let holds = if arguments.is_empty() {
        list()
    } else if let Some(name) = asked.value("--knows") {
        knows(name)
    } else if asked.has("--all") {
        asked.many(&root()).run().await
    } else if asked.has("--render") {
        write(&root(), &kept()).expect("the pages are written");
        true
    } else {
        match asked.case() {
            Ok(case) => one(&case).await,
            Err(why) => {
                eprintln!("{why}");
                false
            }
        }
    };
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Asked<'a> {
    arguments: &'a [String],
}

impl Asked<'_> {
    fn has(&self, name: &str) -> bool {
        self.arguments.iter().any(|argument| argument == name)
    }

    fn value(&self, name: &str) -> Option<&str> {
        let at = self.arguments.iter().position(|argument| argument == name)?;
        self.arguments.get(at + 1).map(String::as_str)
    }

    fn many<'r>(&'r self, root: &'r Path) -> Many<'r> {
        Many {
            root,
            sample: self.has("--sample"),
            only: self.value("--only").unwrap_or_default(),
            write: self.has("--write"),
            resume: self.has("--resume"),
            at_a_time: self.value("--at-a-time").and_then(|number| number.parse().ok()).unwrap_or(AT_A_TIME),
        }
    }

    fn case(&self) -> Result<Case, String> {
        let needed = |name: &str| self.value(name).ok_or_else(|| format!("{name} is missing"));
        Ok(Case {
            site: needed("--site")?.to_owned(),
            position: needed("--position")?.parse::<Position>()?,
            hit: self.value("--hit").unwrap_or("1").parse().map_err(|_| "--hit takes a number".to_owned())?,
            action: needed("--action")?.parse()?,
            first: self.value("--first").map(str::parse).transpose()?,
        })
    }
}

/// What is kept: no server is needed for it.
fn list() -> bool {
    let kept = kept();
    for Place { site, .. } in &kept.sites {
        println!("{:<9} {}", format!("{:?}", site.server).to_lowercase(), site.name);
    }
    println!("{} sites", kept.sites.len());
    true
}

/// Whether there is such a site: in what is kept, or by a statement that is newer than that.
fn knows(name: &str) -> bool {
    let kept = kept();
    let site = Site { name: name.to_owned(), server: Server::Database };
    if kept.sites.iter().any(|place| place.site.name == name) || statement(&root(), &site).is_some() {
        return true;
    }
    let alike = kept.sites.iter().filter(|place| place.site.handler() == site.handler());
    let alike: Vec<_> = alike.map(|place| place.site.name.as_str()).collect();
    let known = if alike.is_empty() { "cargo xtask atlas lists them".to_owned() } else { alike.join(", ") };
    eprintln!("{name} is not in {FILE}, where `cargo xtask atlas --all --write` puts what is new; known: {known}");
    false
}

async fn one(case: &Case) -> bool {
    for action in case.actions() {
        if let Some(what) = lacking(action) {
            eprintln!("{action}: these servers lack {what}");
            return false;
        }
    }
    let outcome = run(case).await;
    for (number, step) in story(&root(), case, &outcome).iter().enumerate() {
        println!("{}. {step}", number + 1);
    }
    keep(&root(), case, &outcome);
    outcome.reached.is_some() && outcome.violations.is_empty()
}

fn kept() -> Atlas {
    Atlas::read(&root()).unwrap_or_else(|error| panic!("{error:#}"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
