//! A shell that a chapter's commands are typed into, one after the other.
use crate::progress::unaware_of_us;
use anyhow::{Context, bail, ensure};
use std::{
    io::{BufRead, BufReader, Lines, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

/// Ends what a command has printed; after it comes how the command ended.
const ENDED: &str = "== ended with ";
/// What cargo and the development loop say of their progress: it is different each time, and shown nowhere.
const PROGRESS: [&str; 12] = [
    "  … ",
    "  ✓ ",
    "  ! ",
    "   Compiling ",
    "    Finished ",
    "     Running ",
    "    Blocking ",
    " Downloading ",
    "  Downloaded ",
    "    Updating ",
    "     Locking ",
    "  Installing ",
];

pub(super) struct Shell {
    bash: Child,
    typed: ChildStdin,
    printed: Lines<BufReader<ChildStdout>>,
}

impl Shell {
    /// In that checkout, with these variables.
    pub(super) fn open(checkout: &Path, variables: &[(&str, String)]) -> anyhow::Result<Self> {
        let mut bash = Command::new("bash");
        bash.args(["--noprofile", "--norc"]).current_dir(checkout);
        unaware_of_us(&mut bash).envs(variables.iter().map(|(name, value)| (name, value)));
        let mut shell = bash.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("bash")?;
        let (typed, printed) = (shell.stdin.take().context("its input")?, shell.stdout.take().context("its output")?);
        writeln!(&typed, "exec 2>&1")?;
        Ok(Self { bash: shell, typed, printed: BufReader::new(printed).lines() })
    }

    /// What a command printed, and whether it succeeded.
    pub(super) fn run(&mut self, command: &str) -> anyhow::Result<(Vec<String>, bool)> {
        // What reads would read what is typed next.
        writeln!(self.typed, "{{ {command}\n}} </dev/null\nprintf '\\n{ENDED}%s\\n' $?")?;
        let mut lines = Vec::new();
        loop {
            let Some(line) = self.printed.next().transpose()? else { bail!("the shell ended in {command}") };
            if let Some(code) = line.strip_prefix(ENDED) {
                // Of the line before it.
                ensure!(lines.pop().is_some_and(|last: String| last.is_empty()), "{command} printed half a line");
                return Ok((lines, code == "0"));
            }
            if !PROGRESS.iter().any(|begin| line.starts_with(begin)) {
                lines.push(line);
            }
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.bash.kill();
        let _ = self.bash.wait();
    }
}
