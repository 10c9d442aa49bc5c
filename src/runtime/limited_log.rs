//! Log lines that any host of the network can cause: written, but never in a flood.

use std::fmt;
use std::sync::Mutex;
use std::time::Instant;

use crate::runtime::limits::LOG_WINDOW;
use crate::sync::lock;

/// Lets a number of lines pass in each [`LOG_WINDOW`] and counts the rest.
#[derive(Debug)]
pub struct LimitedLog {
    lines_max: u32,
    state: Mutex<Option<LogWindow>>,
}

#[derive(Debug)]
struct LogWindow {
    began: Instant,
    lines: u32,
    suppressed: u64,
}

impl LimitedLog {
    /// Lets `lines_max` lines pass in a window.
    pub fn new(lines_max: u32) -> Self {
        LimitedLog { lines_max, state: Mutex::default() }
    }

    /// Writes `line` with `level`, unless the window has had its lines. The first line of the next
    /// window tells how many were left out.
    pub fn log(&self, level: log::Level, now: Instant, line: fmt::Arguments<'_>) {
        match self.admit(now) {
            Some(0) => log::log!(level, "{line}"),
            Some(suppressed) => log::log!(level, "{line} suppressed_lines={suppressed}"),
            None => (),
        }
    }

    /// Whether a line may pass, and how many did not since the last one that did.
    fn admit(&self, now: Instant) -> Option<u64> {
        let mut state = lock(&self.state);
        let suppressed = match &mut *state {
            Some(w) if now.saturating_duration_since(w.began) < LOG_WINDOW => {
                if w.lines >= self.lines_max {
                    w.suppressed += 1;
                    return None;
                }
                w.lines += 1;
                return Some(0);
            }
            Some(w) => w.suppressed,
            None => 0,
        };
        *state = Some(LogWindow { began: now, lines: 1, suppressed: 0 });
        Some(suppressed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_becomes_a_count() {
        let (log, now) = (LimitedLog::new(20), Instant::now());
        let passed = (0..100).filter(|_| log.admit(now).is_some()).count();
        assert_eq!(passed, 20);
        assert_eq!(log.admit(now + LOG_WINDOW), Some(80));
        assert_eq!(log.admit(now + LOG_WINDOW), Some(0));
    }
}
