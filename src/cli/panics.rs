//! What a program says when one of its threads panics: one short line in the log, and not too many
//! of them.
//!
//! A panic is a defect. If a peer can cause it, it can cause it again and again. The standard hook
//! would write the whole text, and with it what the peer sent, past the log and without a bound.

use std::any::Any;
use std::panic::{self, PanicHookInfo};
use std::thread;
use std::time::Instant;

use crate::cli::limits::{PANIC_LINES_MAX, PANIC_TEXT_LEN_MAX};
use crate::runtime::LimitedLog;

/// From now on, panics of this process are lines of its log. For programs only: the process of a
/// library belongs to the program that uses it.
pub(crate) fn log_panics() {
    let log = LimitedLog::new(PANIC_LINES_MAX);
    panic::set_hook(Box::new(move |info| log.log(log::Level::Error, Instant::now(), format_args!("{}", line(info)))));
}

fn line(info: &PanicHookInfo<'_>) -> String {
    let thread = thread::current();
    let place = info.location().map(|at| format!("{}:{}", at.file(), at.line())).unwrap_or_default();
    let (name, text) = (thread.name().unwrap_or("?"), text_of(info.payload()));
    format!("defect thread={name} place={place} text={text:?}")
}

/// The beginning of what a panic says.
fn text_of(payload: &dyn Any) -> String {
    let whole =
        payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let whole = whole.unwrap_or_default();
    let mut end = whole.len().min(PANIC_TEXT_LEN_MAX);
    while !whole.is_char_boundary(end) {
        end -= 1;
    }
    let (shown, rest) = whole.split_at(end);
    if rest.is_empty() { shown.into() } else { format!("{shown}...") }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::cli::report::{LogOptions, Screen};

    /// Set in the process that panics for the test.
    const CHILD: &str = "PANICS_OF_A_CHILD";

    /// Cause: the hook of the standard library writes what a panic says, and a peer could choose that
    /// text. Effect: 0.5 MB a second on standard error, past the limit of the log. Mend: a hook that
    /// logs a short line, and counts the lines beyond its limit.
    #[test]
    fn panics_are_few_short_lines_of_the_log() {
        if std::env::var_os(CHILD).is_some() {
            LogOptions::default().install(&Screen::new()).unwrap();
            log_panics();
            for n in 0..1000 {
                let text = format!("{n}\n\u{1b}[2J\u{fc}{}", "{a,".repeat(4000));
                let _ =
                    thread::Builder::new().name("gpb-serve-1".into()).spawn(move || panic!("{text}")).unwrap().join();
            }
            return;
        }
        let name = "cli::panics::tests::panics_are_few_short_lines_of_the_log";
        let mut child = Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", name, "--nocapture"]).env(CHILD, "1").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!((1..=PANIC_LINES_MAX as usize).contains(&lines.len()), "{} lines", lines.len());
        for line in lines {
            assert!(
                line.contains(" [ERROR] ") && line.contains("defect thread=gpb-serve-1 place=src/cli/panics.rs:"),
                "{line}"
            );
            assert!(
                line.len() < 2 * PANIC_TEXT_LEN_MAX && !line.contains(char::is_control) && line.ends_with("...\""),
                "{line}"
            );
        }
    }
}
