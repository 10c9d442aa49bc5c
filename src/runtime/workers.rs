//! Named threads that are joined when dropped.

use std::io;
use std::thread::{Builder, JoinHandle};

use crate::runtime::Shutdown;

/// A set of named threads, joined on drop. They must have been signalled to end before.
#[derive(Debug, Default)]
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    /// What a panic of one of them sets.
    ends: Option<Shutdown>,
}

impl Workers {
    /// Threads whose panic begins `shutdown`.
    pub fn ending(shutdown: &Shutdown) -> Self {
        Workers { threads: Vec::new(), ends: Some(shutdown.clone()) }
    }

    /// Starts a thread called `name`: at most 15 bytes, which is all that Linux shows.
    ///
    /// # Errors
    /// The system has no thread to give; the message names the thread.
    pub fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        debug_assert!(name.len() <= 15, "thread name {name:?} is cut off in tools");
        let alarm = self.ends.clone().map(|shutdown| DefectAlarm { shutdown, thread: name.into() });
        let run = move || {
            let _alarm = alarm;
            run();
        };
        let thread = Builder::new().name(name.into()).spawn(run).map_err(|e| no_thread(name, e))?;
        self.threads.push(thread);
        Ok(())
    }
}

/// Begins the shutdown when it is dropped by a panic.
struct DefectAlarm {
    shutdown: Shutdown,
    thread: String,
}

impl Drop for DefectAlarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shutdown.fail(&self.thread);
        }
    }
}

/// The error for a thread that the system did not give.
pub(crate) fn no_thread(name: &str, source: io::Error) -> io::Error {
    io::Error::new(source.kind(), NoThread { name: name.into(), source })
}

#[derive(Debug, thiserror::Error)]
#[error("thread {name} cannot be started")]
struct NoThread {
    name: String,
    source: io::Error,
}

impl Drop for Workers {
    fn drop(&mut self) {
        for thread in self.threads.drain(..) {
            // A panic in a thread is logged by its own guard; the others must be joined all the
            // same.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::chain::Chain;

    /// Cause: a panic ended its thread alone. Effect: the node ran on without that service, and what
    /// waited for the thread waited for ever. Mend: the panic ends the node, which names the thread.
    #[test]
    fn a_panic_begins_the_shutdown_and_names_its_thread() {
        let shutdown = Shutdown::new();
        let mut workers = Workers::ending(&shutdown);
        workers.spawn("gpb-well", || ()).unwrap();
        workers.spawn("gpb-ill", || panic!("for the test")).unwrap();
        assert!(shutdown.wait(Duration::from_secs(20)));
        assert_eq!(shutdown.defect().as_deref(), Some("gpb-ill"));
        drop(workers);
        let (shutdown, mut workers) = (Shutdown::new(), Workers::default());
        workers.spawn("gpb-ill", || panic!("for the test")).unwrap();
        drop(workers);
        assert!(!shutdown.has_begun() && shutdown.defect().is_none());
    }

    #[test]
    fn a_thread_that_is_not_given_is_named_with_the_cause() {
        let source = io::Error::from_raw_os_error(rustix::io::Errno::AGAIN.raw_os_error());
        let cause = source.to_string();
        let error = no_thread("gpb-listen", source);
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(Chain(&error).to_string(), format!("thread gpb-listen cannot be started: {cause}"));
    }
}
