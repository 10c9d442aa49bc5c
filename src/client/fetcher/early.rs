//! What a connection of a download asks before it has begun.

use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::client::shared::DownloadShared;
use crate::store::PartialFile;
use crate::swarm::{Dial, Requester};

/// The first requests of a connection that is being dialed: they go out together with `Hello`, a round trip before the
/// session is open. What they ask for is free for others again if it does not open.
pub(crate) struct EarlyRequests {
    shared: Weak<DownloadShared>,
    dial: Dial,
    requester: Option<Requester<Arc<PartialFile>>>,
}

impl EarlyRequests {
    /// For the connection that `dial` leads to.
    pub(crate) fn new(shared: Weak<DownloadShared>, dial: Dial) -> Self {
        EarlyRequests { shared, dial, requester: None }
    }

    /// The peer proved its key over a path with that `round_trip`: appends what it is asked first to `out`, which depends on
    /// the path. What was asked at another address is given back.
    pub(crate) fn ask(&mut self, round_trip: Duration, out: &mut Vec<u8>) {
        self.give_back();
        let is_known = round_trip < Duration::MAX;
        let shared = self.shared.upgrade().filter(|shared| is_known && !shared.is_stopped());
        let Some(shared) = shared else { return };
        let now = Instant::now();
        let mut requester = Requester::new(self.dial.peer, self.dial.locate, round_trip, now);
        requester.turn(&mut shared.state(), false, now);
        let _ = requester.send(|frames| {
            out.extend_from_slice(frames);
            Ok::<_, Infallible>(())
        });
        self.requester = Some(requester);
    }

    /// The conversation that has begun, for the session that has opened; `None` if that was open before.
    pub(super) fn take(&mut self) -> Option<Requester<Arc<PartialFile>>> {
        self.requester.take()
    }

    fn give_back(&mut self) {
        if let (Some(mut requester), Some(shared)) = (self.requester.take(), self.shared.upgrade()) {
            requester.end(&mut shared.state());
            shared.wake_connections();
        }
    }
}

impl Drop for EarlyRequests {
    fn drop(&mut self) {
        self.give_back();
    }
}
