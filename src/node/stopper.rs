//! What ends a node from another thread.

use std::time::Duration;

use crate::runtime::Shutdown;

/// Ends a [`Node`](crate::Node) from another thread, such as one that waits for signals.
///
/// ```no_run
/// use std::time::Duration;
///
/// # let node = gpb::Node::builder().start()?;
/// let stopper = node.stopper();
/// std::thread::spawn(move || {
///     std::thread::sleep(Duration::from_secs(60));
///     stopper.stop();
/// });
/// // Fails with `FetchError::Stopped` if it takes more than a minute.
/// let report = node.fetch("big.bin")?.wait();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Stopper(Shutdown);

impl Stopper {
    pub(super) fn new(shutdown: Shutdown) -> Self {
        Stopper(shutdown)
    }

    /// The thread whose panic, a defect of this library, ended the node; `None` while it runs and
    /// after any other end. A node does not continue without one of its services, and nothing waits for
    /// a thread that is gone. Does not block.
    pub fn defect(&self) -> Option<String> {
        self.0.defect()
    }

    /// Begins the end: calls that block return within milliseconds, with
    /// [`FetchError::Stopped`](crate::FetchError::Stopped), and the peers get a goodbye. The threads are joined when the
    /// node is dropped. Does not block.
    pub fn stop(&self) {
        self.0.begin();
    }

    /// Waits until the end has begun, at most for `time`; true if it has.
    pub fn wait(&self, time: Duration) -> bool {
        self.0.wait(time)
    }
}
