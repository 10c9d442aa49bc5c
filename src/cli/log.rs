//! The log of a program: standard error and a file, one fact a line.

use std::io::{LineWriter, Write};

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
        let mut sinks: Vec<Box<dyn SharedLogger>> = vec![sink(self.stderr_level(), screen.clone())];
        if let Some(path) = &self.file {
            let file = LogFile::open(path, LOG_FILE_LEN_MAX);
            let file = file.map_err(|e| format!("cannot open log file {}: {e}", path.display()))?;
            sinks.push(sink(self.file_level(), file));
        }
        let all = CombinedLogger::new(sinks);
        log::set_max_level(all.level());
        log::set_boxed_logger(Box::new(OneLine(all))).map_err(|e| e.to_string())
    }
}

fn sink<W: Write + Send + 'static>(level: LevelFilter, to: W) -> Box<WriteLogger<LineWriter<W>>> {
    // Whole lines go out in one write, so that processes which append to one file do not mix
    // theirs.
    WriteLogger::new(level, config(), LineWriter::new(to))
}

fn config() -> Config {
    ConfigBuilder::new()
        .set_time_format_rfc3339()
        .set_thread_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Debug)
        .build()
}

/// Keeps each record on one line, so that a name that a peer chose cannot forge a record, and drops
/// what other libraries log below warnings.
struct OneLine<L>(L);

impl<L: Log> Log for OneLine<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let own = OWN_TARGETS.contains(&metadata.target().split("::").next().unwrap_or_default());
        (own || metadata.level() <= LevelFilter::Warn) && self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = record.args().to_string();
        let line = escape(&text);
        // `format_args!` must not outlive the statement.
        self.0.log(&Record::builder().metadata(record.metadata().clone()).args(format_args!("{line}")).build());
    }

    fn flush(&self) {
        self.0.flush();
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
        let logger = OneLine(CombinedLogger::new(vec![sink(level, buffer.clone())]));
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
