//! How a program ends: the exit code and the one line that says why.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use serde::Serialize;

use crate::chain::Chain;
use crate::cli::text::escape;

/// The exit codes. A fetch can be resumed after each of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Done = 0,
    /// An error without a code of its own, such as a port in use.
    Other = 1,
    /// A bad option, configuration, key or trusted file at start.
    Usage = 2,
    /// No peer is reachable.
    NoPeer = 3,
    /// Peers answered, and none has the file.
    NotFound = 4,
    /// One name has two roots.
    Ambiguous = 5,
    /// The only holders left sent wrong bytes.
    Liars = 6,
    /// The local disk is full or read-only, denies permission, or lacks the directory.
    Storage = 7,
    /// Connected, but without progress for `--timeout`, or every peer that answered is full.
    Silent = 8,
    /// Every holder refused this node's key.
    Refused = 9,
    /// Interrupted by a signal.
    Interrupted = 130,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

/// Why a program ends early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// Cause and next step, printed on one line; nothing is printed if it is empty.
    pub message: String,
}

impl Failure {
    /// An end with this message.
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Failure { exit, message: message.to_string() }
    }

    /// An end with `error`, its causes and the next step. An empty step is not shown.
    pub(crate) fn from_error(exit: Exit, error: &dyn std::error::Error, step: &str) -> Self {
        let separator = if step.is_empty() { "" } else { "; " };
        Failure { exit, message: format!("{}{separator}{step}", Chain(error)) }
    }

    /// A thread of the node panicked, which ended it.
    pub fn from_defect(thread: &str) -> Self {
        Failure::new(
            Exit::Other,
            format!("a defect of gpb ended its thread {thread}; the log has its place, start it again"),
        )
    }

    /// Standard output took no more. A reader that went away is no failure: it has
    /// seen enough.
    pub fn from_stdout(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure { exit: Exit::Done, message: String::new() },
            _ => Failure::new(Exit::Other, format!("cannot write to standard output: {error}")),
        }
    }

    /// Prints the failure: a JSON line on `stdout`, or `error: ...` on `stderr`, which also has what
    /// `stdout` does not take. An error of that is ignored, since there is no place left to report it.
    pub fn print(&self, json: bool, stdout: &mut dyn Write, stderr: &mut dyn Write) -> Exit {
        let is_said = self.message.is_empty() || (json && self.print_json(stdout).is_ok());
        if !is_said {
            let _ = writeln!(stderr, "error: {}", escape(&self.message));
            let _ = stdout.flush();
        }
        self.exit
    }

    fn print_json(&self, stdout: &mut dyn Write) -> io::Result<()> {
        let line = ErrorLine { event: "error", code: self.exit.code(), message: &self.message };
        writeln!(stdout, "{}", serde_json::to_string(&line)?)?;
        stdout.flush()
    }
}

#[derive(Serialize)]
struct ErrorLine<'a> {
    event: &'static str,
    code: u8,
    message: &'a str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(failure: &Failure, json: bool) -> (String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        failure.print(json, &mut out, &mut err);
        (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn a_failure_is_one_line() {
        let failure = Failure::new(Exit::Storage, "cannot write \"a\nb\"");
        assert_eq!(printed(&failure, false), (String::new(), "error: cannot write \"a\\nb\"\n".into()));
        let json = "{\"event\":\"error\",\"code\":7,\"message\":\"cannot write \\\"a\\nb\\\"\"}\n";
        assert_eq!(printed(&failure, true), (json.into(), String::new()));
    }

    /// Cause: with `--json` the error went to standard output alone. Effect: where that was full, the program ended with
    /// code 1 and no word. Mend: standard error has what standard output does not take.
    #[test]
    fn what_a_full_standard_output_does_not_take_is_said_on_the_other() {
        let failure = Failure::from_stdout(&io::ErrorKind::StorageFull.into());
        let (mut full, mut err) = ([0_u8; 9], Vec::new());
        failure.print(true, &mut full.as_mut_slice(), &mut err);
        assert_eq!(String::from_utf8(err).unwrap(), format!("error: {}\n", failure.message));
    }

    #[test]
    fn a_closed_pipe_is_success() {
        let gone = Failure::from_stdout(&io::ErrorKind::BrokenPipe.into());
        assert_eq!((gone.exit, printed(&gone, false)), (Exit::Done, (String::new(), String::new())));
        assert_eq!(Failure::from_stdout(&io::ErrorKind::StorageFull.into()).exit, Exit::Other);
    }
}
