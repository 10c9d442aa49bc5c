//! Signals that ask a program to stop, or a service to reopen its log.
//!
//! Owns the thread `gpb-signals`, which waits for them and ends when [`StopSignals`] is dropped.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::{Handle, Signals};

use crate::cli::Exit;

/// Waits for SIGINT, SIGTERM and SIGHUP. The first one asks to stop; the second one ends the
/// process at once with code 130. A SIGHUP that was ignored at start (`nohup`) stays ignored. It
/// asks a service for another thing, as is the custom: to reopen its log, and continue.
#[derive(Debug)]
pub struct StopSignals {
    asked: Arc<AtomicBool>,
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl StopSignals {
    /// Calls `stop` on the signal thread when the first signal comes; `stop` must not block.
    ///
    /// # Errors
    /// The handlers or the thread cannot be set up.
    pub fn on_first(stop: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        Self::start(true, stop)
    }

    /// The same, but SIGHUP only flushes the log, which reopens a log file that was moved away.
    ///
    /// # Errors
    /// The handlers or the thread cannot be set up.
    pub fn of_service(stop: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        Self::start(false, stop)
    }

    fn start(hangup_stops: bool, stop: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        if !is_ignored(SIGHUP) {
            signals.add_signal(SIGHUP)?;
        }
        let (asked, handle) = (Arc::new(AtomicBool::new(false)), signals.handle());
        let seen = asked.clone();
        let thread = std::thread::Builder::new().name("gpb-signals".into()).spawn(move || {
            let mut stop = Some(stop);
            for signal in signals.forever() {
                if signal == SIGHUP && !hangup_stops {
                    log::logger().flush();
                    log::info!("hangup, the log is opened anew signal={signal}");
                    continue;
                }
                seen.store(true, Ordering::Release);
                match stop.take() {
                    Some(stop) => {
                        // First, since the log may be held up.
                        stop();
                        log::info!("stopping signal={signal}");
                    }
                    None => std::process::exit(Exit::Interrupted.code().into()),
                }
            }
        })?;
        Ok(StopSignals { asked, handle, thread: Some(thread) })
    }

    /// Whether a signal came.
    pub fn asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }
}

impl Drop for StopSignals {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            // The thread has reported a panic of the callback.
            let _ = thread.join();
        }
    }
}

/// Catches SIGXFSZ, which by default ends a process without a word at its limit of file size: the write
/// that exceeds it fails then, and says why.
///
/// # Errors
/// The handler cannot be set up.
pub(crate) fn catch_file_size_limit() -> io::Result<()> {
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map(drop)
}

/// Whether the process was started with `signal` ignored; false where the system does not say.
fn is_ignored(signal: i32) -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| mask_has(&status, signal))
}

fn mask_has(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|m| u64::from_str_radix(m.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// One test, since signals are for all of the process. A service was stopped by the SIGHUP that rotations of logs
    /// send.
    #[test]
    fn the_first_signal_asks_to_stop_unless_it_is_a_hangup_of_a_service() {
        let raise = |signal| signal_hook::low_level::raise(signal).unwrap();
        for of_service in [false, true] {
            let (tell, told) = mpsc::channel();
            let stop = move || tell.send(()).unwrap();
            let signals = if of_service { StopSignals::of_service(stop) } else { StopSignals::on_first(stop) }.unwrap();
            assert!(!signals.asked());
            if of_service {
                // If these asked to stop, the second one of them would end the process.
                [SIGHUP, SIGHUP].into_iter().for_each(raise);
            }
            raise(SIGTERM);
            told.recv_timeout(Duration::from_secs(60)).unwrap();
            assert!(signals.asked());
        }
    }

    #[test]
    fn the_mask_of_ignored_signals_is_read() {
        assert!(mask_has("Name:\tx\nSigIgn:\t0000000000000001\n", SIGHUP));
        assert!(!mask_has("SigIgn:\t0000000000001000\n", SIGHUP) && mask_has("SigIgn:\t1000", 13));
        assert!(!mask_has("", SIGHUP) && !mask_has("SigIgn: zz", SIGHUP));
    }
}
