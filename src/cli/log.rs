//! The log of a program: standard error and a file, one fact a line.

use std::io::{LineWriter, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use log::{LevelFilter, Log, Metadata, Record};
use simplelog::{CombinedLogger, Config, ConfigBuilder, SharedLogger, WriteLogger};

use crate::cli::limits::LOG_FILE_LEN_MAX;
use crate::cli::log_file::LogFile;
use crate::cli::report::{LogOptions, Screen};
use crate::cli::text::escape;

impl LogOptions {
    /// Makes this the log of the process. Lines are written above the progress on `screen`.
    ///
    /// # Errors
    /// One line: the file cannot be opened, or the process has a log already.
    pub(crate) fn install(&self, screen: &Screen) -> Result<(), String> {
        let with_time = has_form(SystemTime::now());
        let mut sinks: Vec<Box<dyn SharedLogger>> = vec![sink(self.stderr_level(), with_time, screen.clone())];
        if let Some(path) = &self.file {
            let file = LogFile::open(path, LOG_FILE_LEN_MAX);
            let file = file.map_err(|e| {
                format!("cannot open log file {}: {e}; name another one with --log-file", path.display())
            })?;
            sinks.push(sink(self.file_level(), with_time, file));
        }
        let all = CombinedLogger::new(sinks);
        log::set_max_level(all.level());
        log::set_boxed_logger(Box::new(OneLine { to: all, with_time })).map_err(|e| e.to_string())
    }
}

fn sink<W: Write + Send + 'static>(level: LevelFilter, with_time: bool, to: W) -> Box<WriteLogger<LineWriter<W>>> {
    // Whole lines go out in one write, so that processes which append to one file do not mix
    // theirs.
    WriteLogger::new(level, config(with_time), LineWriter::new(to))
}

/// Whether RFC 3339 has a form for `now`: years have four digits. The logger panics at any other time, with its own lock
/// held, on which the report of that panic would wait for ever.
fn has_form(now: SystemTime) -> bool {
    now.duration_since(UNIX_EPOCH).map_or_else(|before| before.duration() <= YEAR_0, |since| since < YEAR_10000)
}

/// The time from the begin of the year 0 to that of 1970.
const YEAR_0: Duration = Duration::from_secs(62_167_219_200);
/// The time from the begin of 1970 to that of the year 10000.
const YEAR_10000: Duration = Duration::from_secs(253_402_300_800);

fn config(with_time: bool) -> Config {
    ConfigBuilder::new()
        .set_time_format_rfc3339()
        .set_time_level(if with_time { LevelFilter::Error } else { LevelFilter::Off })
        .set_thread_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Debug)
        .build()
}

/// Keeps each record on one line, so that a name that a peer chose cannot forge a record, and drops
/// what other libraries log below warnings, and lines at a time that cannot be written.
struct OneLine<L> {
    to: L,
    /// The lines begin with the time.
    with_time: bool,
}

impl<L: Log> Log for OneLine<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let own = OWN_TARGETS.contains(&metadata.target().split("::").next().unwrap_or_default());
        (own || metadata.level() <= LevelFilter::Warn) && self.to.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) || (self.with_time && !has_form(SystemTime::now())) {
            return;
        }
        let text = record.args().to_string();
        let line = escape(&text);
        // `format_args!` must not outlive the statement.
        self.to.log(&Record::builder().metadata(record.metadata().clone()).args(format_args!("{line}")).build());
    }

    fn flush(&self) {
        self.to.flush();
    }
}

/// The library and the programs.
const OWN_TARGETS: [&str; 4] = ["gpb", "gpb_keygen", "gpb_server", "gpb_client"];

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use log::Level;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(text);
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: LevelFilter, records: &[(Level, &str, &str)]) -> String {
        let buffer = Buffer::default();
        let logger = OneLine { to: CombinedLogger::new(vec![sink(level, true, buffer.clone())]), with_time: true };
        for (level, target, text) in records {
            logger.log(&Record::builder().level(*level).target(target).args(format_args!("{text}")).build());
        }
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_record_cannot_forge_a_line() {
        let text =
            logged(LevelFilter::Info, &[(Level::Warn, "gpb::x", "name=a\r\n2026-01-01T00:00:00Z [ERROR] \u{1b}[2J")]);
        assert_eq!(text.lines().count(), 1);
        assert!(text.ends_with("name=a\\r\\n2026-01-01T00:00:00Z [ERROR] \\u{1b}[2J\n"), "{text:?}");
    }

    #[test]
    fn lines_begin_with_the_time_in_utc() {
        let text = logged(LevelFilter::Info, &[(Level::Info, "gpb", "hello")]);
        let time = text.split(' ').next().unwrap();
        assert!(time.len() >= 20 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{text}");
        assert!(text.ends_with(" [INFO] hello\n"), "{text}");
    }

    /// Cause: the logger panics where a time has no form, and the panic is logged. Effect: with a clock in the year 10000 a
    /// program said nothing and never ended. Mend: its lines have no time then.
    #[test]
    fn a_time_without_a_form_is_left_out() {
        assert!(has_form(UNIX_EPOCH) && has_form(UNIX_EPOCH + YEAR_10000 - Duration::from_nanos(1)));
        assert!(has_form(UNIX_EPOCH - YEAR_0));
        assert!(!has_form(UNIX_EPOCH + YEAR_10000) && !has_form(UNIX_EPOCH - YEAR_0 - Duration::from_nanos(1)));
        let buffer = Buffer::default();
        let logger = OneLine { to: sink(LevelFilter::Info, false, buffer.clone()), with_time: false };
        logger.log(&Record::builder().level(Level::Info).target("gpb").args(format_args!("hello")).build());
        assert_eq!(*buffer.0.lock().unwrap(), b"[INFO] hello\n");
    }

    #[test]
    fn libraries_log_from_warnings_up() {
        let records = [
            (Level::Debug, "gpb::server", "own"),
            (Level::Debug, "gpb_server", "program"),
            (Level::Debug, "gpbx", "stranger"),
            (Level::Debug, "rustls::client", "chatter"),
            (Level::Warn, "rustls::client", "trouble"),
        ];
        let text = logged(LevelFilter::Debug, &records);
        assert!(text.contains("own") && text.contains("program") && text.contains("trouble"), "{text}");
        assert!(!text.contains("stranger") && !text.contains("chatter"), "{text}");
    }
}
