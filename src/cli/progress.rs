//! The progress of a fetch: a bar on a terminal, plain lines elsewhere, or JSON.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use console::Term;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::cli::report::{ReportOptions, Screen, Verbosity};
use crate::cli::text::{bytes, rate};
use crate::client::Progress;

/// Shows the [`Progress`] of a fetch, at a pace that suits the place where it is shown.
#[derive(Debug)]
pub struct ProgressDisplay {
    form: Form,
    /// Verified bytes at the first call and its time: the rate leaves out what earlier runs
    /// fetched.
    first: Option<(u64, Instant)>,
    last: Option<(Shown, Instant)>,
}

/// What a line or a bar shows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Shown {
    bytes: u64,
    /// 0 while it is unknown.
    total: u64,
    files_done: usize,
    files: usize,
    peers: usize,
    /// No byte arrives.
    stalled: bool,
}

#[derive(Debug)]
enum Form {
    None,
    /// A bar in the style for a terminal of that many columns.
    Bar(ProgressBar, u16),
    Lines(Screen),
    Json,
}

impl ProgressDisplay {
    /// What `report` asks for. A bar needs a terminal that can move its cursor as standard error;
    /// `-q` leaves JSON only.
    pub fn new(report: &ReportOptions, screen: &Screen) -> Self {
        let form = if report.json {
            Form::Json
        } else if report.log.verbosity == Verbosity::Quiet {
            Form::None
        } else if Term::stderr().is_term() && std::env::var_os("TERM").is_none_or(|term| term != "dumb") {
            let columns = columns();
            Form::Bar(screen.add(ProgressBar::no_length().with_style(style(columns))), columns)
        } else {
            Form::Lines(screen.clone())
        };
        ProgressDisplay { form, first: None, last: None }
    }

    /// Shows `at`, unless the last call showed something just before. `stalled` says that no byte
    /// arrives. Cheap enough for many calls a second.
    ///
    /// # Errors
    /// Standard output takes no more.
    pub fn show(&mut self, at: &Progress, stalled: bool, now: Instant) -> io::Result<()> {
        let at = Shown {
            bytes: at.bytes_done,
            total: at.bytes,
            files_done: at.files_done,
            files: at.files,
            peers: at.peers,
            stalled,
        };
        let (first_bytes, first_at) = *self.first.get_or_insert((at.bytes, now));
        let interval = match &mut self.form {
            Form::None => return Ok(()),
            Form::Bar(bar, fitted) => {
                let columns = columns();
                if std::mem::replace(fitted, columns) != columns {
                    bar.set_style(style(columns));
                }
                show_bar(bar, &at, self.last.is_none());
                self.last = Some((at, now));
                return Ok(());
            }
            Form::Lines(_) => LINE_INTERVAL,
            Form::Json => JSON_INTERVAL,
        };
        if !self.is_due(at, now, interval) {
            return Ok(());
        }
        match &self.form {
            Form::Json => write_json(&mut io::stdout().lock(), &at),
            Form::Lines(screen) => {
                let seconds = now.saturating_duration_since(first_at).as_secs_f64();
                let line = plain_line(&at, at.bytes.saturating_sub(first_bytes), seconds);
                // If this fails, the results on standard output are no less wanted.
                let _ = screen.above(|| writeln!(io::stderr(), "{line}"));
                Ok(())
            }
            Form::None | Form::Bar(..) => Ok(()),
        }
    }

    /// Whether `at` differs from the last line and that is old enough; if so, `at` becomes the
    /// last.
    fn is_due(&mut self, at: Shown, now: Instant, interval: Duration) -> bool {
        if let Some((last, shown_at)) = self.last
            && (last == at || now.saturating_duration_since(shown_at) < interval)
        {
            return false;
        }
        self.last = Some((at, now));
        true
    }

    /// Takes the bar away: what stays on the terminal is the end of the program.
    pub fn finish(self) {
        if let Form::Bar(bar, _) = self.form {
            bar.finish_and_clear();
        }
    }
}

/// The width of the terminal; 80 where it does not tell.
fn columns() -> u16 {
    Term::stderr().size().1
}

/// The style for a terminal of `columns`: a line that is wider would wrap, and its upper part stay
/// behind.
fn style(columns: u16) -> ProgressStyle {
    let fits = TEMPLATES.iter().find(|(least, _)| columns >= *least).map_or("", |(_, template)| template);
    ProgressStyle::with_template(fits).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn show_bar(bar: &ProgressBar, at: &Shown, is_first: bool) {
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

fn tail(at: &Shown) -> String {
    let mut text = format!("{} {}", at.peers, if at.peers == 1 { "peer" } else { "peers" });
    if at.files > 1 {
        text = format!("{text}, file {} of {}", (at.files_done + 1).min(at.files), at.files);
    }
    // Where all is here, it is the disk that is waited for.
    if at.stalled && (at.total == 0 || at.bytes < at.total) {
        text.push_str(", waiting for a source");
    }
    text
}

fn plain_line(at: &Shown, fetched: u64, seconds: f64) -> String {
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

fn write_json(out: &mut dyn Write, at: &Shown) -> io::Result<()> {
    let line = ProgressLine { event: "progress", bytes: at.bytes, total: at.total, peers: at.peers };
    writeln!(out, "{}", serde_json::to_string(&line)?)?;
    out.flush()
}

#[derive(Serialize)]
struct ProgressLine {
    event: &'static str,
    bytes: u64,
    total: u64,
    peers: usize,
}

/// Least time between two plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(1);
/// Least time between two JSON lines.
const JSON_INTERVAL: Duration = Duration::from_millis(500);
/// What a line shows from a number of columns on. The message takes what the rest leaves; without
/// it, the first takes up to 75 columns, the second 50, the third 20.
const TEMPLATES: [(u16, &str); 4] = [
    (90, "{bar:24} {percent:>3}% {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} {wide_msg}"),
    (60, "{percent:>3}% {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} {wide_msg}"),
    (25, "{percent:>3}% {binary_bytes_per_sec} {wide_msg}"),
    (5, "{percent:>3}%"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_line_counts_only_what_this_run_fetched() {
        let mut at = Shown { bytes: 3 << 20, total: 4 << 20, files: 1, peers: 2, ..Shown::default() };
        assert_eq!(plain_line(&at, 1 << 20, 2.0), "progress 75% 3.0 MiB of 4.0 MiB 512 KiB/s eta 2 s, 2 peers");
        at.stalled = true;
        assert_eq!(plain_line(&at, 0, 2.0), "progress 75% 3.0 MiB of 4.0 MiB 0 B/s, 2 peers, waiting for a source");
        at.bytes = at.total;
        assert_eq!(plain_line(&at, 0, 2.0), "progress 100% 4.0 MiB of 4.0 MiB 0 B/s, 2 peers");
        let many = Shown { files_done: 2, files: 3, peers: 1, ..Shown::default() };
        assert_eq!(plain_line(&many, 0, 0.0), "progress 0 B 0 B/s, 1 peer, file 3 of 3");
    }

    #[test]
    fn lines_are_few_and_never_repeat_themselves() {
        let start = Instant::now();
        let mut progress = ProgressDisplay { form: Form::Json, first: None, last: None };
        let mut shown = 0;
        for ms in 0..10_000 {
            let at = Shown { bytes: ms.min(5_000), ..Shown::default() };
            shown += u32::from(progress.is_due(at, start + Duration::from_millis(ms), JSON_INTERVAL));
        }
        assert_eq!(shown, 11);
    }

    #[test]
    fn json_has_the_agreed_fields() {
        let mut out = Vec::new();
        write_json(&mut out, &Shown { bytes: 1, total: 2, peers: 3, ..Shown::default() }).unwrap();
        assert_eq!(out, b"{\"event\":\"progress\",\"bytes\":1,\"total\":2,\"peers\":3}\n");
    }

    #[test]
    fn the_templates_are_valid() {
        for (_, template) in TEMPLATES {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
