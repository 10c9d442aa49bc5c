//! What the thread of a download, or of a survey, waits on.

use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, bounded};

/// A bell that any thread rings and one thread waits for. Rings before a wait count, however many,
/// as one.
#[derive(Clone)]
pub(crate) struct Doorbell {
    ring: Sender<()>,
    rings: Receiver<()>,
}

impl Doorbell {
    pub(crate) fn new() -> Self {
        let (ring, rings) = bounded(1);
        Doorbell { ring, rings }
    }

    /// Ends the present or the next wait. Never blocks.
    pub(crate) fn ring(&self) {
        // A bell that has rung already is full.
        let _ = self.ring.try_send(());
    }

    /// Waits until the bell rings, at most for `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) {
        let _ = self.rings.recv_timeout(timeout);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_ring_before_the_wait_counts_once() {
        let bell = Doorbell::new();
        (0..3).for_each(|_| bell.ring());
        let begin = Instant::now();
        bell.wait(Duration::from_secs(60));
        assert!(begin.elapsed() < Duration::from_secs(30));
        bell.wait(Duration::from_millis(20));
        assert!(begin.elapsed() >= Duration::from_millis(20));
    }
}
