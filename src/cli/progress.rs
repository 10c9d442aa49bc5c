//! Showing how a download gets on: a bar on a terminal, plain lines elsewhere, or JSON.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::cli::log::Verbosity;
use crate::cli::resolve::ReportOptions;
use crate::cli::text::{bytes, escape, rate};

/// Standard error, shared by the log and the bar: lines are written above the bar.
#[derive(Debug, Clone)]
pub struct Screen {
    bars: MultiProgress,
}

impl Screen {
    /// Standard error as it is.
    pub fn new() -> Self {
        Screen { bars: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()) }
    }

    /// Runs `write` while no bar is drawn.
    pub(crate) fn above<T>(&self, write: impl FnOnce() -> T) -> T {
        self.bars.suspend(write)
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

/// How far a download is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Verified bytes, those of earlier runs included.
    pub bytes: u64,
    /// Bytes in all; 0 as long as that is unknown.
    pub total: u64,
    /// Files that are whole.
    pub files_done: u64,
    /// Files in all.
    pub files_total: u64,
    /// Peers that are being fetched from.
    pub peers: usize,
    /// What is waited for, when nothing comes in.
    pub waiting: Option<String>,
}

/// Shows [`Snapshot`]s, as often as it makes sense for where they go.
#[derive(Debug)]
pub struct Progress {
    form: Form,
    /// Bytes at the first snapshot and when that was: what an earlier run fetched says nothing about the rate.
    first: Option<(u64, Instant)>,
    last: Option<(Snapshot, Instant)>,
}

#[derive(Debug)]
enum Form {
    None,
    Bar(ProgressBar),
    Lines(Screen),
    Json,
}

impl Progress {
    /// What `report` asks for; a bar only if standard error is a terminal, nothing but JSON with `-q`.
    pub fn new(report: &ReportOptions, screen: &Screen) -> Self {
        let form = if report.json {
            Form::Json
        } else if report.log.verbosity == Verbosity::Quiet {
            Form::None
        } else if io::stderr().is_terminal() {
            let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
            Form::Bar(screen.bars.add(ProgressBar::no_length().with_style(style)))
        } else {
            Form::Lines(screen.clone())
        };
        Progress { form, first: None, last: None }
    }

    /// Shows `now_at`, unless the last one was shown just before. Cheap enough to be called many times a second.
    ///
    /// # Errors
    /// When standard output or standard error takes no more.
    pub fn show(&mut self, now_at: &Snapshot, now: Instant) -> io::Result<()> {
        let (first_bytes, first_at) = *self.first.get_or_insert((now_at.bytes, now));
        let interval = match &self.form {
            Form::None => return Ok(()),
            Form::Bar(bar) => {
                show_bar(bar, now_at, self.last.is_none());
                self.last = Some((now_at.clone(), now));
                return Ok(());
            }
            Form::Lines(_) => LINE_INTERVAL,
            Form::Json => JSON_INTERVAL,
        };
        if !self.is_due(now_at, now, interval) {
            return Ok(());
        }
        match &self.form {
            Form::Json => write_json(&mut io::stdout().lock(), now_at),
            Form::Lines(screen) => {
                let seconds = now.saturating_duration_since(first_at).as_secs_f64();
                let line = plain_line(now_at, now_at.bytes.saturating_sub(first_bytes), seconds);
                screen.above(|| writeln!(io::stderr(), "{line}"))
            }
            Form::None | Form::Bar(_) => Ok(()),
        }
    }

    /// Whether there is something new and the last line is old enough; if so, this becomes the last line.
    fn is_due(&mut self, now_at: &Snapshot, now: Instant, interval: Duration) -> bool {
        if let Some((last, at)) = &self.last
            && (last == now_at || now.saturating_duration_since(*at) < interval)
        {
            return false;
        }
        self.last = Some((now_at.clone(), now));
        true
    }

    /// Takes the bar away, so that the end of the program is what stays on the terminal.
    pub fn finish(self) {
        if let Form::Bar(bar) = self.form {
            bar.finish_and_clear();
        }
    }
}

fn show_bar(bar: &ProgressBar, at: &Snapshot, is_first: bool) {
    if at.total > 0 {
        bar.set_length(at.total);
    }
    bar.set_position(at.bytes);
    if is_first {
        // The rate begins here and not at zero bytes.
        bar.reset_eta();
    }
    bar.set_message(tail(at));
}

fn tail(at: &Snapshot) -> String {
    let mut text = format!("{} {}", at.peers, if at.peers == 1 { "peer" } else { "peers" });
    if at.files_total > 1 {
        text = format!("{text}, file {} of {}", (at.files_done + 1).min(at.files_total), at.files_total);
    }
    if let Some(waiting) = &at.waiting {
        text = format!("{text}, {}", escape(waiting));
    }
    text
}

fn plain_line(at: &Snapshot, fetched: u64, seconds: f64) -> String {
    let percent = if at.total > 0 {
        format!(" {}%", (u128::from(at.bytes) * 100 / u128::from(at.total)).min(100))
    } else {
        String::new()
    };
    let eta = match (fetched, at.total.saturating_sub(at.bytes)) {
        (0, _) | (_, 0) => String::new(),
        (fetched, left) => format!(" eta {:.0} s", (seconds / fetched as f64 * left as f64).ceil()),
    };
    let of = if at.total > 0 { format!(" of {}", bytes(at.total)) } else { String::new() };
    format!("progress{percent} {}{of} {}{eta}, {}", bytes(at.bytes), rate(fetched, seconds), tail(at))
}

fn write_json(out: &mut dyn Write, at: &Snapshot) -> io::Result<()> {
    let line = Line { event: "progress", bytes: at.bytes, total: at.total, peers: at.peers };
    writeln!(out, "{}", serde_json::to_string(&line)?)?;
    out.flush()
}

#[derive(Serialize)]
struct Line {
    event: &'static str,
    bytes: u64,
    total: u64,
    peers: usize,
}

/// Least time between two plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(1);
/// Least time between two JSON lines.
const JSON_INTERVAL: Duration = Duration::from_millis(500);
const TEMPLATE: &str = "{bar:24} {percent:>3}% {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} {msg}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_line_counts_only_what_this_run_fetched() {
        let mut at = Snapshot { bytes: 3 << 20, total: 4 << 20, files_total: 1, peers: 2, ..Snapshot::default() };
        assert_eq!(plain_line(&at, 1 << 20, 2.0), "progress 75% 3.0 MiB of 4.0 MiB 512 KiB/s eta 2 s, 2 peers");
        at.waiting = Some("waiting for\na peer".into());
        assert_eq!(plain_line(&at, 0, 2.0), "progress 75% 3.0 MiB of 4.0 MiB 0 B/s, 2 peers, waiting for\\na peer");
        let many = Snapshot { files_done: 2, files_total: 3, peers: 1, ..Snapshot::default() };
        assert_eq!(plain_line(&many, 0, 0.0), "progress 0 B 0 B/s, 1 peer, file 3 of 3");
    }

    #[test]
    fn lines_are_few_and_never_repeat_themselves() {
        let start = Instant::now();
        let mut progress = Progress { form: Form::Json, first: None, last: None };
        let mut told = 0;
        for ms in 0..10_000 {
            let at = Snapshot { bytes: ms.min(5_000), ..Snapshot::default() };
            told += u32::from(progress.is_due(&at, start + Duration::from_millis(ms), JSON_INTERVAL));
        }
        assert_eq!(told, 11);
    }

    #[test]
    fn json_has_the_agreed_fields() {
        let mut out = Vec::new();
        write_json(&mut out, &Snapshot { bytes: 1, total: 2, peers: 3, ..Snapshot::default() }).unwrap();
        assert_eq!(out, b"{\"event\":\"progress\",\"bytes\":1,\"total\":2,\"peers\":3}\n");
    }

    #[test]
    fn the_template_is_valid() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }
}
