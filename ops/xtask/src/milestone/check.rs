//! Whether the chapters are true: what they print, what they ask for, and that it can be done.
use super::{
    chapter::{Chapter, Shown},
    shell::Shell,
    solved,
};
use crate::{
    progress::Step,
    rehearse,
    test::{Services, servers},
};
use anyhow::{Context, bail};
use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// Goes on until Ctrl-C, so it has a terminal of its own.
const UP: &str = "cargo xtask up";
/// What commands printed, whole.
const SAID: &str = "target/milestones/said";
const REHEARSE: &str = "cargo xtask rehearse";
/// This program, as it began.
const ITSELF: &str = "target/milestones/xtask";
const RUNNING: &str = "/proc/self/exe";
/// In which all of it is built and started.
const UP_WITHIN: Duration = Duration::from_mins(10);

/// All chapters, on one set of servers, and their exercises.
pub(super) fn everything(chapters: &[Chapter], services: Services) -> anyhow::Result<()> {
    let servers = servers(services)?;
    let variables = servers.urls().variables();
    let mut wrong = typed(chapters, &variables)?;
    wrong.extend(solved::check(chapters, &variables)?);
    judge(&wrong)
}

/// Their commands alone.
pub(super) fn commands_of(chapters: &[Chapter], services: Services) -> anyhow::Result<()> {
    let servers = servers(services)?;
    judge(&typed(chapters, &servers.urls().variables())?)
}

fn judge(wrong: &[String]) -> anyhow::Result<()> {
    if !wrong.is_empty() {
        bail!("what chapters say is not so:\n\n{}", wrong.join("\n\n"));
    }
    Ok(())
}

/// What commands do otherwise than chapters say.
fn typed(chapters: &[Chapter], variables: &[(&str, String)]) -> anyhow::Result<Vec<String>> {
    fs::create_dir_all(crate::root().join(SAID))?;
    // What is typed may build this program anew, as what CI ran before may have: its name may be another's by now.
    fs::copy(RUNNING, crate::root().join(ITSELF)).with_context(|| format!("{RUNNING} to {ITSELF}"))?;
    let mut wrong = Vec::new();
    for chapter in chapters {
        let step = Step::begin(format!("chapter {}", chapter.title()));
        let found = commands(chapter, variables).with_context(|| chapter.file())?;
        step.done(format!("{}: {} commands, {} of them wrong", chapter.file(), chapter.commands.len(), found.len()));
        wrong.extend(found);
    }
    Ok(wrong)
}

/// What a chapter's commands do otherwise than it says.
fn commands(chapter: &Chapter, variables: &[(&str, String)]) -> anyhow::Result<Vec<String>> {
    let mut shell = Shell::open(&crate::root(), variables)?;
    let (mut wrong, mut up, mut said) = (Vec::new(), None, Vec::new());
    for shown in &chapter.commands {
        // A clone of the newest revision alone has no last release.
        if shown.command.starts_with(REHEARSE) && !rehearse::is_possible() {
            continue;
        }
        if shown.command.starts_with(UP) {
            up = Some(Up::start(shown)?);
            continue;
        }
        let began = Instant::now();
        let (printed, is_well) = shell.run(&shown.command)?;
        let took = format!("({:.1} s)", began.elapsed().as_secs_f64());
        said.extend([format!("$ {}", shown.command), printed.join("\n"), took]);
        let told = |why: String| format!("{}: {}: {why}", chapter.file(), shown.command);
        wrong.extend(shown.differs(&printed).map(told));
        if is_well == shown.fails {
            wrong.push(told(format!("it {}", if is_well { "does not fail" } else { "failed" })));
        }
    }
    drop(up);
    // For whoever writes the chapter.
    fs::write(crate::root().join(SAID).join(chapter.title().replace(' ', "-")), said.join("\n"))?;
    Ok(wrong)
}

/// The whole system, in the other terminal.
struct Up(Child);

impl Up {
    /// Until it has said what the chapter shows.
    fn start(shown: &Shown) -> anyhow::Result<Self> {
        let options = shown.command.strip_prefix(UP).unwrap_or_default().split_whitespace();
        let mut up = Command::new(crate::root().join(ITSELF));
        let mut child = up.arg("up").args(options).stdout(Stdio::piped()).spawn()?;
        let (said, heard) = mpsc::channel();
        let lines = BufReader::new(child.stdout.take().context("its output")?).lines();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| said.send(line)));
        let (this, mut printed, until) = (Self(child), Vec::new(), Instant::now() + UP_WITHIN);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(line) = heard.recv_timeout(left) else {
                bail!("{UP}: {}", shown.differs(&printed).unwrap_or_default());
            };
            printed.push(line);
            if shown.differs(&printed).is_none() {
                return Ok(this);
            }
        }
    }
}

impl Drop for Up {
    /// Ctrl-C.
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-INT", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}
