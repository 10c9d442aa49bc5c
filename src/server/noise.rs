//! Log lines that strangers can cause: written, but never in a flood.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::server::limits::NOISE_WINDOW;

/// Lets so many lines pass in [`NOISE_WINDOW`] and counts the rest.
#[derive(Debug)]
pub(crate) struct Noise {
    lines_max: u32,
    state: Mutex<Option<Window>>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    lines: u32,
    suppressed: u64,
}

impl Noise {
    pub(crate) fn new(lines_max: u32) -> Self {
        Noise { lines_max, state: Mutex::default() }
    }

    /// Writes `line` with `level` unless too many were written lately.
    pub(crate) fn log(&self, level: log::Level, now: Instant, line: fmt::Arguments<'_>) {
        match self.admit(now) {
            Some(0) => log::log!(level, "{line}"),
            Some(suppressed) => log::log!(level, "{line} suppressed_lines={suppressed}"),
            None => (),
        }
    }

    /// Whether a line may pass, and how many did not since the last one that did.
    fn admit(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let suppressed = match &mut *state {
            Some(w) if now.saturating_duration_since(w.began) < NOISE_WINDOW => {
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
        *state = Some(Window { began: now, lines: 1, suppressed: 0 });
        Some(suppressed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_becomes_a_count() {
        let (noise, now) = (Noise::new(20), Instant::now());
        let passed = (0..100).filter(|_| noise.admit(now).is_some()).count();
        assert_eq!(passed, 20);
        assert_eq!(noise.admit(now + NOISE_WINDOW), Some(80));
        assert_eq!(noise.admit(now + NOISE_WINDOW), Some(0));
    }
}
