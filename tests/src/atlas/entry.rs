//! What is kept of a case: nothing that differs from run to run.
use super::{
    attack::Outcome,
    case::{Action, Case, First, Site},
    filling,
    history::Told,
    operating,
    source::Source,
};
use gavel_runtime::boundary::{Position, Server};
use serde::{Deserialize, Serialize};
use std::{fs, path::Path};

/// One case of the atlas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which case.
    #[serde(flatten)]
    pub case: Case,
    /// What clients saw of it.
    pub client: String,
    /// What was left of what had been acknowledged.
    pub survived: String,
    /// What healed it.
    pub healed_by: String,
    /// What an operator has to do.
    pub operator: String,
}

/// Everything that must hold did.
const ALL: &str = "everything that was acknowledged, once";

impl Entry {
    /// Of a case that was run.
    pub fn of(case: &Case, outcome: &Outcome) -> Self {
        let client = if outcome.history.was_unknown() { "an unknown outcome, until it asked again" } else { "nothing" };
        let holds = outcome.violations.is_empty();
        let survived = if holds { ALL.to_owned() } else { format!("not: {}", outcome.violations.join("; ")) };
        Self {
            case: case.clone(),
            client: client.to_owned(),
            survived,
            healed_by: healed_by(case.action).to_owned(),
            operator: if holds { operator_does(case) } else { "to be found out" }.to_owned(),
        }
    }

    /// Whether everything held that must.
    pub fn holds(&self) -> bool {
        self.survived == ALL
    }
}

const fn healed_by(action: Action) -> &'static str {
    match action {
        Action::Kill => "the process that was started in its place",
        Action::Reset | Action::Terminate => "a new connection",
        Action::Restart => "a new connection, once it is back",
        Action::ReadOnly => "the next write; until then nobody read what it held",
        Action::Alarm => "the next try, once the broker reads again",
        Action::DeleteQueues => "queues declared anew by who publishes or consumes; and the operator",
        Action::FullDisk => "the next try, once there is room",
        Action::Away => "a new connection, once there is somebody to connect to",
        Action::Silence => "its time ran out; what came late found it done, or nobody",
        Action::Freeze => "who had its place by then; what it held had run out",
    }
}

fn operator_does(case: &Case) -> &'static str {
    match case.action {
        Action::FullDisk if filling::comes_by(&case.site) => {
            "bidctl schema backfill resume, where it has paused itself"
        }
        Action::DeleteQueues => "bidctl rebuild stats and read-model: what waited in the queues is gone",
        _ => "nothing",
    }
}

/// The story of a case, step by step.
pub fn story(root: &Path, case: &Case, outcome: &Outcome) -> Vec<String> {
    let mut told = Vec::new();
    if let Some(First { site, position, action }) = &case.first {
        told.push(format!(
            "First, {position} {site}: {action}. What follows happens to the process that recovers from it."
        ));
    }
    let Some((process, reached)) = &outcome.reached else {
        return vec![format!("No process came by {} a {}. time.", case.site, case.hit)];
    };
    let site = Site { name: case.site.clone(), server: reached.server };
    let handler = case.site.split('.').next().unwrap_or_default();
    let server = name_of(reached.server);
    let Source { at, text, is_statement } = Source::of(root, &site);
    let at = at.map(|line| format!(" ({line})")).unwrap_or_default();
    let quoted = if text.is_empty() { text } else { format!("\n{}", indented(&text)) };
    told.push(match reached.server {
        Server::Client => format!("A client calls {handler} of {process}{at}:{quoted}"),
        _ if is_statement => format!("{process} runs {handler} and asks {server}{at}:{quoted}"),
        _ => format!("{process} runs {handler} and asks {server}: {}{at}{quoted}", site.operation()),
    });
    let when = match case.position {
        Position::Before => "Before it is done",
        Position::After => "When it is done, and nobody has heard of it",
    };
    told.push(match case.action {
        Action::Kill => format!("{when}, {process} is killed, as by kill -9. Another is started."),
        Action::Reset => format!("{when}, every connection to {server} is cut."),
        Action::Terminate => format!("{when}, {server} ends every session of the programs."),
        Action::Silence => format!("{when}, {server} falls silent, for longer than anybody waits."),
        Action::Away => format!("{when}, {server} is away for five seconds: connections are cut, new ones refused."),
        Action::Restart if reached.server == Server::Cache => {
            format!("{when}, {server} is started again, and holds nothing any more.")
        }
        Action::Restart => format!("{when}, {server} is started again."),
        Action::ReadOnly => format!("{when}, {server} takes no writes, for five seconds."),
        Action::Alarm => format!("{when}, {server} raises its memory alarm, and reads nothing from publishers."),
        Action::DeleteQueues => format!(
            "{when}, somebody deletes both consumers' queues. Once all is told, an operator makes statistics and the \
             read model anew."
        ),
        Action::FullDisk => format!("{when}, the disk of {server} is filled to the last byte, for five seconds."),
        Action::Freeze => {
            format!(
                "{when}, {process} stands still. Another is started; then it wakes up, its leases run out, and goes on."
            )
        }
    });
    for bid in outcome.history.bids.iter().filter(|bid| !bid.unknown.is_empty()) {
        let now = match &bid.told {
            Told::Done(reply) => format!("it was taken, as number {}", reply.sequence),
            Told::Refused(why, _) => format!("it was refused: {why}"),
        };
        told.push(format!(
            "{} bids {} and is told \"{}\"; asks again with the same key, {} times: {now}.",
            bid.bidder,
            bid.amount,
            bid.unknown[0],
            bid.unknown.len(),
        ));
    }
    for call in &outcome.history.asked_again {
        let times = call.unknown.len();
        told.push(format!("Who calls {} is told \"{}\"; asks again, {times} times.", call.handler, call.unknown[0]));
    }
    told.extend(left(case, outcome));
    told
}

/// How it ended.
fn left(case: &Case, outcome: &Outcome) -> Vec<String> {
    let seconds = outcome.recovered_within.as_secs_f64();
    if !outcome.violations.is_empty() {
        return vec![format!("What does not hold:\n{}", indented(&outcome.violations.join("\n")))];
    }
    if operating::comes_by(&case.site) {
        return vec![format!("After {seconds:.1} s all that the operator did is done once, and written down once.")];
    }
    if filling::comes_by(&case.site) {
        return vec![format!("After {seconds:.1} s every row is filled and counted once, and nothing is left open.")];
    }
    let mut told = Vec::new();
    if !outcome.history.was_unknown() {
        told.push("Nobody who calls notices.".to_owned());
    }
    told.push(format!("After {seconds:.1} s everything is told, counted and shown, and nothing is left open."));
    let taken = outcome.history.bids.iter().filter(|bid| matches!(bid.told, Told::Done(_))).count();
    told.push(format!("{taken} bids were acknowledged: each is in the ledger once, and nothing else is."));
    told
}

/// The server's own name.
pub(super) fn name_of(server: Server) -> &'static str {
    match server {
        Server::Database => "PostgreSQL",
        Server::Broker => "RabbitMQ",
        Server::Cache => "Redis",
        Server::Client => "a client",
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("     {line}")).collect::<Vec<_>>().join("\n")
}

/// Leaves what a case said, for whoever looks into it.
pub fn keep(root: &Path, case: &Case, outcome: &Outcome) {
    let Case { site, position, hit, action, first } = case;
    let dir = root.join("target/atlas");
    let first = first.as_ref().map(|first| format!("{first}-")).unwrap_or_default();
    let path = dir.join(format!("{first}{site}-{position}-{hit}-{action}"));
    let text = format!("cargo xtask atlas {case}\n{:#?}\n{}\n", outcome.history, outcome.log.join("\n"));
    if let Err(error) = fs::create_dir_all(&dir).and_then(|()| fs::write(&path, text)) {
        eprintln!("{}: {error}", path.display());
    }
}
