//! Named threads that are joined when dropped.

use std::io;
use std::thread::{Builder, JoinHandle};

/// A set of named threads, joined on drop. Whoever drops it has told them to end before.
#[derive(Debug, Default)]
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts a thread called `name`: at most 15 bytes, which is all that Linux shows.
    ///
    /// # Errors
    /// The system has no thread to give; the message says what to do.
    pub fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        debug_assert!(name.len() <= 15, "thread name {name:?} is cut off in tools");
        let thread = Builder::new().name(name.into()).spawn(run).map_err(|e| no_thread(name, &e))?;
        self.threads.push(thread);
        Ok(())
    }
}

/// The system did not give thread `name`: what that means and what helps.
pub(crate) fn no_thread(name: &str, source: &io::Error) -> io::Error {
    let text = format!("thread {name} cannot be started: {source}; end other programs, or raise the limit (ulimit -u)");
    io::Error::new(source.kind(), text)
}

impl Drop for Workers {
    fn drop(&mut self) {
        for thread in self.threads.drain(..) {
            // A panic in a thread is logged by its own guard; the others must be joined all the same.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_is_not_given_says_what_helps() {
        let source = io::Error::from(io::ErrorKind::WouldBlock);
        let error = no_thread("gpb-listen", &source);
        assert_eq!(error.kind(), source.kind());
        let text = error.to_string();
        assert!(text.contains("gpb-listen") && text.contains(&source.to_string()) && text.contains("ulimit"), "{text}");
    }
}
