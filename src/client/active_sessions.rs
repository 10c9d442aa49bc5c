//! The sessions of a download that are at work.

use std::collections::{HashMap, HashSet};
use std::net::{Shutdown as Close, TcpStream};
use std::sync::atomic::AtomicBool;
use std::sync::{Condvar, Mutex};

use crate::identity::PeerId;
use crate::sync::{lock, wait};

/// Sessions at work, which the end of a download cuts off and waits for.
#[derive(Default)]
pub(crate) struct ActiveSessions {
    /// By number of the connection.
    sockets: Mutex<HashMap<u64, (PeerId, TcpStream)>>,
    /// One of them has ended.
    ended: Condvar,
    /// The set of connections is full, and other peers could be dialed.
    pub(crate) others_wait: AtomicBool,
}

impl ActiveSessions {
    /// Adds the session of `connection`, unless `is_stopped` says that the download has ended: then
    /// it must not begin.
    pub(crate) fn begin(
        &self,
        connection: u64,
        peer: PeerId,
        socket: TcpStream,
        is_stopped: impl FnOnce() -> bool,
    ) -> bool {
        let mut sockets = lock(&self.sockets);
        // Under the lock: a stop cuts off the sessions that it finds here, and no session begins
        // after it.
        let begins = !is_stopped();
        if begins {
            sockets.insert(connection, (peer, socket));
        }
        begins
    }

    pub(crate) fn end(&self, connection: u64) {
        lock(&self.sockets).remove(&connection);
        self.ended.notify_all();
    }

    /// Cuts off the sessions with peers that `which` names. Their threads notice at their next read
    /// or write.
    pub(crate) fn cut(&self, which: impl Fn(&PeerId) -> bool) {
        for (_, socket) in lock(&self.sockets).values().filter(|(peer, _)| which(peer)) {
            let _ = socket.shutdown(Close::Both);
        }
    }

    /// Waits until no session is at work.
    pub(crate) fn wait(&self) {
        let mut sockets = lock(&self.sockets);
        while !sockets.is_empty() {
            sockets = wait(&self.ended, sockets);
        }
    }

    /// Peers with a session at work.
    pub(crate) fn peers(&self) -> HashSet<PeerId> {
        lock(&self.sockets).values().map(|s| s.0).collect()
    }
}
