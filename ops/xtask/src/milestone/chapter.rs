//! A chapter: its file, its exercise, and the commands that it shows.
use anyhow::{Context, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where they are, from the root.
const DIR: &str = "docs/milestones";
/// How many there are.
const COUNT: usize = 6;

/// Behind the fence of a block whose last command is meant to fail,
const FAILS: &str = "console fails";
/// and of one that shows what is printed once the exercise is done.
const DONE: &str = "console done";

/// See the module.
pub(super) struct Chapter {
    number: usize,
    /// As in `2-concurrency.md`.
    stem: String,
    /// Its commands, in order.
    pub(super) commands: Vec<Shown>,
    /// What its checkpoint prints once the exercise is done.
    pub(super) done: Vec<String>,
}

/// A command, and what it prints: `…` stands for anything within a line, and alone for any lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) command: String,
    pub(super) printed: Vec<String>,
    /// Whether it is meant to fail.
    pub(super) fails: bool,
}

impl Chapter {
    pub(super) fn all() -> anyhow::Result<Vec<Self>> {
        let mut files: Vec<PathBuf> =
            fs::read_dir(crate::root().join(DIR))?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
        files.sort();
        let begins = |path: &Path| path.file_name()?.to_str()?.chars().next()?.to_digit(10);
        let chapters = files.iter().filter(|path| begins(path).is_some());
        let chapters: Vec<_> = chapters.map(|path| Self::read(path)).collect::<anyhow::Result<_>>()?;
        let numbers: Vec<_> = chapters.iter().map(|chapter| chapter.number).collect();
        ensure!(numbers == (1..=COUNT).collect::<Vec<_>>(), "{DIR} has the chapters {numbers:?}");
        Ok(chapters)
    }

    fn read(path: &Path) -> anyhow::Result<Self> {
        let name = path.file_stem().and_then(|stem| stem.to_str()).context("a chapter's name")?;
        let (number, stem) = name.split_once('-').context("a chapter is called NUMBER-NAME.md")?;
        let text = fs::read_to_string(path)?;
        let done = blocks(&text)
            .filter(|(kind, _)| *kind == DONE)
            .flat_map(|(_, block)| shown(block))
            .last()
            .map(|shown| shown.printed);
        Ok(Self {
            number: number.parse()?,
            stem: stem.to_owned(),
            commands: commands(&text),
            done: done.with_context(|| format!("{name} shows no checkpoint that is passed (```console done)"))?,
        })
    }

    /// `2 concurrency`.
    pub(super) fn title(&self) -> String {
        format!("{} {}", self.number, self.stem.replace('-', " "))
    }

    /// From the root.
    pub(super) fn file(&self) -> String {
        format!("{DIR}/{}-{}.md", self.number, self.stem)
    }

    /// The tests that wait for its exercise.
    pub(super) fn tests(&self) -> String {
        format!("test(/^exercises::{}::/)", self.stem.replace('-', "_"))
    }

    /// What is typed to see whether it is done.
    pub(super) fn checkpoint(&self) -> String {
        format!("cargo xtask milestone {}", self.number)
    }

    /// A patch that does it.
    pub(super) fn solution(&self) -> PathBuf {
        crate::root().join(DIR).join(format!("solutions/{}-{}.patch", self.number, self.stem))
    }
}

/// Those of all blocks that are to be run here.
fn commands(text: &str) -> Vec<Shown> {
    let mut all: Vec<Shown> = Vec::new();
    for (kind, block) in blocks(text).filter(|(kind, _)| ["console", FAILS].contains(kind)) {
        all.extend(shown(block));
        // The last one, which is why it is shown.
        if let Some(last) = all.last_mut().filter(|_| kind == FAILS) {
            last.fails = true;
        }
    }
    all
}

/// Blocks of code, each with what stands behind its fence.
fn blocks(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split("```").skip(1).step_by(2).filter_map(|block| block.split_once('\n'))
}

/// The commands of a block: `$ ` and what is typed, then what is printed.
fn shown(block: &str) -> Vec<Shown> {
    let mut all: Vec<Shown> = Vec::new();
    for line in block.lines() {
        if let Some(command) = line.strip_prefix("$ ") {
            all.push(Shown { command: command.to_owned(), printed: Vec::new(), fails: false });
        } else if let Some(last) = all.last_mut() {
            last.printed.push(line.trim_end().to_owned());
        }
    }
    all
}

impl Shown {
    /// What is printed that is not shown, or shown and not printed: nothing where they agree.
    pub(super) fn differs(&self, printed: &[String]) -> Option<String> {
        if agree(&self.printed, printed) {
            return None;
        }
        let quote = |lines: &[String]| format!("    {}", lines.join("\n    "));
        Some(format!("the chapter shows\n{}\nand it printed\n{}", quote(&self.printed), quote(printed)))
    }
}

fn agree(shown: &[String], printed: &[String]) -> bool {
    match shown.split_first() {
        None => printed.is_empty(),
        Some((any, rest)) if any.trim() == "…" => (0..=printed.len()).any(|skipped| agree(rest, &printed[skipped..])),
        Some((line, rest)) => {
            printed.split_first().is_some_and(|(first, others)| agrees(line, first.trim_end()) && agree(rest, others))
        }
    }
}

/// The pieces between the dots are there, in order, from the beginning to the end.
fn agrees(shown: &str, printed: &str) -> bool {
    let mut pieces = shown.split('…');
    let Some(mut rest) = pieces.next().and_then(|first| printed.strip_prefix(first)) else { return false };
    let pieces: Vec<_> = pieces.collect();
    let Some((last, middle)) = pieces.split_last() else { return rest.is_empty() };
    for piece in middle {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn dots_stand_for_anything_and_nothing_else_does() {
        assert!(agrees("a … b", "a long way to b") && agrees("…", "") && agrees("a", "a"));
        assert!(!agrees("a … b", "a long way to c") && !agrees("a", "a b") && !agrees("a … a", "a"));
        assert!(agree(&lines("one\n…\nfour"), &lines("one\ntwo\nthree\nfour")));
        assert!(agree(&lines("…"), &[]) && !agree(&lines("one"), &lines("one\ntwo")));
    }

    #[test]
    fn commands_are_read_with_what_they_print_and_those_of_a_done_exercise_are_not() {
        let text = "```console\n$ first\nits line\n$ second\n```\n```console fails\n$ third\n```\n\
                    ```console done\n$ fourth\n```\n";
        let found: Vec<_> = commands(text).into_iter().map(|one| (one.command, one.printed.len(), one.fails)).collect();
        let one = |name: &str, lines, fails| (name.to_owned(), lines, fails);
        assert_eq!(found, [one("first", 1, false), one("second", 0, false), one("third", 0, true)]);
    }
}
