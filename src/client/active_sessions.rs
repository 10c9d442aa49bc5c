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
    sockets: Mutex<HashMap<u64, SessionAtWork>>,
    /// One of them has ended.
    ended: Condvar,
    /// The set of connections is full, and other peers could be dialed.
    pub(crate) others_wait: AtomicBool,
}

/// A session of a download.
struct SessionAtWork {
    peer: PeerId,
    socket: TcpStream,
    /// Nothing is unanswered on it: it waits for work.
    rests: bool,
    is_cut: bool,
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
            sockets.insert(connection, SessionAtWork { peer, socket, rests: false, is_cut: false });
        }
        begins
    }

    /// The session of `connection` is over. True if it can serve another task: it was not cut off.
    pub(crate) fn end(&self, connection: u64) -> bool {
        let ended = lock(&self.sockets).remove(&connection);
        self.ended.notify_all();
        ended.is_some_and(|session| !session.is_cut)
    }

    /// Whether nothing is unanswered on the session of `connection`.
    pub(crate) fn set_rests(&self, connection: u64, rests: bool) {
        if let Some(session) = lock(&self.sockets).get_mut(&connection) {
            session.rests = rests;
        }
    }

    /// Cuts off the sessions with peers that `which` names. Their threads notice at their next read
    /// or write.
    pub(crate) fn cut(&self, which: impl Fn(&PeerId) -> bool) {
        self.cut_each(|session| which(&session.peer));
    }

    /// Cuts off all sessions with something unanswered. The others may serve another download.
    pub(crate) fn cut_busy(&self) {
        self.cut_each(|session| !session.rests);
    }

    fn cut_each(&self, which: impl Fn(&SessionAtWork) -> bool) {
        for session in lock(&self.sockets).values_mut().filter(|session| which(session)) {
            session.is_cut = true;
            let _ = session.socket.shutdown(Close::Both);
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
        lock(&self.sockets).values().map(|session| session.peer).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;

    #[test]
    fn the_end_of_a_download_cuts_no_session_that_rests() {
        let sessions = ActiveSessions::default();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut far: Vec<TcpStream> = (1..=3)
            .map(|number| {
                let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                assert!(sessions.begin(number, PeerId([number as u8; 32]), near, || false));
                listener.accept().unwrap().0
            })
            .collect();
        sessions.set_rests(1, true);
        sessions.set_rests(2, true);
        sessions.set_rests(2, false);
        sessions.cut_busy();
        for cut in &mut far[1..] {
            assert_eq!(cut.read(&mut [0]).unwrap(), 0, "it is shut down");
        }
        assert_eq!([1, 2, 3].map(|number| sessions.end(number)), [true, false, false]);
        assert!(sessions.begin(4, PeerId([4; 32]), far.remove(0), || false));
        sessions.set_rests(4, true);
        sessions.cut(|peer| *peer == PeerId([4; 32]));
        assert!(!sessions.end(4) && !sessions.end(4), "the end of trust cuts each session");
    }
}
