//! Changes of the schema: how far each has come, and the steps that take old forms away. They go to the database
//! itself, as whoever owns the tables.
use crate::bidctl::{
    backfill::{self, Number},
    lint,
    migrate::Migrate,
    output::{Output, say},
    refused::Refused,
    settings::Settings,
    why,
};
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use gavel::schema::{PROGRAMS, SOURCES};
use gavel_runtime::{
    changes::{History, Phase},
    schema::{self, Asked, Guard, Outcome, Status, Transition},
};
use secrecy::SecretString;
use serde_json::json;

#[derive(Subcommand)]
pub(crate) enum Schema {
    /// Every change, its phase, and what it waits for
    Status(List),
    /// Apply the migrations the database lacks, as `bidctl migrate`
    Expand(Migrate),
    /// Fill the rows of a change, beside everybody's work (role ops)
    #[command(subcommand)]
    Backfill(backfill::Backfill),
    /// Take a change's old form out of reach, once it is proved that nobody needs it
    Contract(Step),
    /// Bring an old form back that was taken out of reach
    Revert(Step),
    /// Drop an old form for good, once it was out of reach for long enough
    Drop(Step),
    /// Look over the files of all changes, as CI does before they land
    Lint,
}

#[derive(Args)]
pub(crate) struct List {
    /// Also those that are over
    #[arg(long)]
    all: bool,
}

#[derive(Args)]
pub(crate) struct Step {
    /// The change's number, such as 27
    change: Number,
    /// Why, for the audit
    #[arg(long, required_unless_present = "dry_run", value_parser = why::reason)]
    reason: Option<String>,
    /// Only say what must be proved, and what speaks for it
    #[arg(long)]
    dry_run: bool,
}

impl Schema {
    pub(crate) async fn run(&self, settings: &Settings, output: Output) -> anyhow::Result<()> {
        match self {
            Self::Status(list) => status(list, settings, output).await,
            Self::Expand(migrate) => migrate.run(settings, output).await,
            Self::Backfill(backfill) => backfill.run(settings, output).await,
            Self::Contract(step) => step.run(Transition::Contract, settings, output).await,
            Self::Revert(step) => step.run(Transition::Revert, settings, output).await,
            Self::Lint => lint::run(output),
            Self::Drop(step) => step.run(Transition::Drop, settings, output).await,
        }
    }
}

fn database(settings: &Settings) -> anyhow::Result<SecretString> {
    let mut env = settings.env();
    let url = env.secret_url("DATABASE_URL", &["postgres", "postgresql"], "the database whose schema it is");
    env.finish()?;
    Ok(url)
}

async fn status(list: &List, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let history = History::read(SOURCES)?;
    let mut all = schema::status(&database(settings)?, (&history, PROGRAMS)).await?;
    let count = all.len();
    all.retain(|status| list.all || !status.is_over);
    let changes: Vec<_> = all.iter().map(as_json).collect();
    let rows: Vec<_> = all.iter().map(as_row).collect();
    output.table(&json!({ "changes": changes }), &["change", "phase", "next", "waits for"], &rows);
    if rows.is_empty() && !output.json {
        say!("All {count} changes are over: --all shows them.");
    }
    Ok(())
}

fn as_json(status: &Status) -> serde_json::Value {
    json!({
        "change": status.name, "phase": status.phase.map(Phase::name), "is_over": status.is_over,
        "next": Some(status.next).filter(|next| !next.is_empty()), "waits_for": status.waits_for,
    })
}

fn as_row(status: &Status) -> Vec<String> {
    let phase = status.phase.map_or("not expanded", Phase::name);
    let waits = match (status.is_over, status.waits_for.is_empty()) {
        (true, _) => "-".to_owned(),
        (false, true) => "nothing".to_owned(),
        (false, false) => status.waits_for.join("; "),
    };
    vec![status.name.clone(), phase.to_owned(), status.next.to_owned(), waits]
}

impl Step {
    async fn run(&self, transition: Transition, settings: &Settings, output: Output) -> anyhow::Result<()> {
        let history = History::read(SOURCES)?;
        // Who only looks is in no audit.
        let by = if self.dry_run { String::new() } else { why::here(settings)? };
        let reason = self.reason.as_deref().unwrap_or_default();
        let asked = Asked { by: &by, reason, dry_run: self.dry_run, busy: waits };
        let (number, known) = (self.change.0, (&history, PROGRAMS));
        let outcome = schema::transition(&database(settings)?, known, number, transition, asked).await?;
        show(&outcome, output);
        let open = outcome.guards.iter().filter(|guard| !guard.holds);
        let open: Vec<_> = open.map(|guard| format!("{}: {}", guard.name, guard.evidence)).collect();
        match (open.is_empty(), self.dry_run) {
            (false, _) => bail!(Refused { code: "failed_precondition".to_owned(), message: open.join("; ") }),
            (true, true) => Ok(()),
            (true, false) => outcome.done.then_some(()).context("nothing was done"),
        }
    }
}

fn show(outcome: &Outcome, output: Output) {
    let guard_json = |guard: &Guard| json!({ "guard": guard.name, "holds": guard.holds, "evidence": guard.evidence });
    let guards: Vec<_> = outcome.guards.iter().map(guard_json).collect();
    let holds = |guard: &Guard| if guard.holds { "yes" } else { "no" }.to_owned();
    let mut rows: Vec<_> =
        outcome.guards.iter().map(|guard| vec![guard.name.to_owned(), holds(guard), guard.evidence.clone()]).collect();
    rows.push(vec!["done".to_owned(), if outcome.done { "yes" } else { "no" }.to_owned(), tries(outcome)]);
    let json = json!({ "guards": guards, "done": outcome.done, "tries": outcome.tries });
    output.table(&json, &["what", "holds", "evidence"], &rows);
}

fn tries(outcome: &Outcome) -> String {
    match outcome.tries {
        0 => "nothing was locked".to_owned(),
        1 => "its locks were there at once".to_owned(),
        tries => format!("its locks were there at try {tries}, of 100 ms each"),
    }
}

/// Said beside what is printed.
fn waits(tries: u32, of: u32) {
    eprintln!("its locks are held by others, try {tries} of {of}: nothing has changed yet");
}
