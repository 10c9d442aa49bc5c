//! How a program reports: verbosity, JSON, and the terminal that log and progress share.

use std::io::{self, Write};
use std::path::PathBuf;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget};
use log::LevelFilter;

/// How a program reports what it does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReportOptions {
    /// One JSON object a line on standard output.
    pub json: bool,
    /// What is logged, and where.
    pub log: LogOptions,
}

/// What is logged, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// How much goes to standard error.
    pub verbosity: Verbosity,
    /// Overrides `verbosity`, and sets the level of the file.
    pub level: Option<LevelFilter>,
    /// A file to append to, at info unless `level` is set.
    pub file: Option<PathBuf>,
}

/// How much goes to standard error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Verbosity {
    /// Errors only, and no progress (`-q`).
    Quiet,
    /// Errors and warnings: the client's default.
    #[default]
    Warn,
    /// What happens: the server's default.
    Info,
    /// What happens and why (`-v`).
    Verbose,
}

/// Standard error, shared by the log and the progress bar: lines are written above the bar.
#[derive(Debug, Clone)]
pub struct Screen {
    bars: MultiProgress,
}

impl LogOptions {
    /// The level of standard error.
    pub fn stderr_level(&self) -> LevelFilter {
        self.level.unwrap_or(match self.verbosity {
            Verbosity::Quiet => LevelFilter::Error,
            Verbosity::Warn => LevelFilter::Warn,
            Verbosity::Info => LevelFilter::Info,
            Verbosity::Verbose => LevelFilter::Debug,
        })
    }

    /// The level of the file.
    pub fn file_level(&self) -> LevelFilter {
        self.level.unwrap_or(LevelFilter::Info)
    }
}

impl Screen {
    /// Standard error, without a bar.
    pub fn new() -> Self {
        Screen { bars: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()) }
    }

    /// Adds `bar` at the bottom.
    pub(crate) fn add(&self, bar: ProgressBar) -> ProgressBar {
        self.bars.add(bar)
    }

    /// Runs `write` while no bar is drawn, so that its lines stay above the bar.
    pub fn above<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bars.suspend(write)
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

impl Write for Screen {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.above(|| io::stderr().write(text))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_follow_from_the_options() {
        let levels = |verbosity, level| {
            let options = LogOptions { verbosity, level, file: None };
            (options.stderr_level(), options.file_level())
        };
        assert_eq!(levels(Verbosity::Quiet, None), (LevelFilter::Error, LevelFilter::Info));
        assert_eq!(levels(Verbosity::Warn, None), (LevelFilter::Warn, LevelFilter::Info));
        assert_eq!(levels(Verbosity::Info, None), (LevelFilter::Info, LevelFilter::Info));
        assert_eq!(levels(Verbosity::Verbose, None), (LevelFilter::Debug, LevelFilter::Info));
        assert_eq!(levels(Verbosity::Quiet, Some(LevelFilter::Trace)), (LevelFilter::Trace, LevelFilter::Trace));
    }
}
