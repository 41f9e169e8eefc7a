//! Showing something again and again, until Ctrl-C.
use crate::bidctl::{output::Output, refused::Refused};
use clap::Args;
use std::{io::IsTerminal, time::Duration};

/// Returns whether standard output is a terminal that knows of a cursor.
fn is_screen() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb")
}

/// Where there is a screen, clears it and goes to its corner.
pub(crate) fn clear_screen() {
    if is_screen() {
        print!("\x1b[2J\x1b[H");
    }
}

#[derive(Args, Clone, Copy)]
pub(crate) struct Watch {
    /// Show it again and again, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Seconds between two looks
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3_600), requires = "watch")]
    every: u64,
}

impl Watch {
    /// Runs `show` once, or every so often. A look that fails is shown, and the watching goes on.
    pub(crate) async fn run<F>(self, output: Output, show: impl Fn(Output) -> F) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<()>>,
    {
        if !self.watch {
            return show(output).await;
        }
        let output = Output { compact: true, ..output };
        loop {
            if !output.json {
                clear_screen();
            }
            if let Err(error) = show(output).await {
                // What is not allowed now will not be in two seconds either.
                if error.downcast_ref::<Refused>().is_some_and(Refused::is_final) {
                    return Err(error);
                }
                output.error(&error);
            }
            tokio::time::sleep(Duration::from_secs(self.every)).await;
        }
    }
}
