//! Sessions whose roles are exchanged, between the services: the side that opened the connection answers on it, because
//! no other node can dial it.

use std::any::Any;
use std::collections::HashMap;
use std::net::{IpAddr, Shutdown, TcpStream};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crate::identity::{NodeId, PeerId};
use crate::net::TurnedEnd;
use crate::peers::limits::{TURNED_MAX, TURNED_PER_ADDR_MAX, TURNED_PER_KEY_MAX, TURNED_PER_NODE_MAX};
use crate::runtime::{OnBegin, Subscription};
use crate::sync::lock;

/// What a session keeps while it lives, so that the end of the node, and of the trust in its peer, cut it off.
pub type SessionGuards = (OnBegin, Option<Subscription>);

/// The turned sessions of a node that no service has: others offer to answer on some, and this node is to answer on the
/// rest.
#[derive(Default)]
pub struct TurnedSessions {
    state: Mutex<TurnedState>,
}

#[derive(Default)]
struct TurnedState {
    /// The node ends: nothing further is kept.
    closed: bool,
    /// Sessions on which another node answers, the oldest first.
    offered: Vec<OfferedSession>,
    /// Sessions that this node offered, on their way to its server.
    to_answer: Vec<Answering>,
    /// Wakes the server; `None` where nothing is served.
    wake: Option<Box<dyn Fn() + Send>>,
    /// The sessions that this node offered, by the node that may ask.
    answering: HashMap<NodeId, Answered>,
    /// Their sockets.
    sockets: HashMap<NodeId, Vec<Weak<TcpStream>>>,
}

/// A session on which another node offers to answer.
pub struct OfferedSession {
    /// The node.
    pub node: NodeId,
    /// Its connection.
    pub end: TurnedEnd,
    /// What counts it as a connection of the server that accepted it.
    pub lease: Box<dyn Lease>,
    /// Cut it off.
    pub held: SessionGuards,
    /// Kept while it is there: the node counts as present.
    pub presence: Box<dyn Any + Send>,
}

/// A place of a connection, which may be taken away.
pub trait Lease: Send {
    /// Whether it was taken away: the connection must end.
    fn is_lost(&self) -> bool;
    /// The connection is used from now on.
    fn take_up(&self);
}

/// A session on which this node is to answer.
pub struct Answering {
    /// Its connection.
    pub end: TurnedEnd,
    /// Counts it.
    pub ticket: AnswerTicket,
    /// How long a question and its answer took on it.
    pub round_trip: Duration,
}

/// Counts a session on which this node answers, until it is dropped.
pub struct AnswerTicket {
    sessions: Arc<TurnedSessions>,
    node: NodeId,
    begun: bool,
    socket: Option<Arc<TcpStream>>,
    _held: SessionGuards,
    _presence: Box<dyn Any + Send>,
}

/// The turned sessions of a node: the side that opened them answers on them, because the other one may be
/// unable to dial it.
///
/// ```
/// # let lan = gpb::testing::Lan::new()?;
/// # let node = lan.node()?;
/// assert_eq!(node.stats().turned, gpb::TurnedStats::default(), "nobody is behind a NAT here");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct TurnedStats {
    /// Nodes that this one answers on sessions that it opened.
    pub answered: usize,
    /// Nodes of them that asked something there.
    pub asking: usize,
    /// Sessions that other nodes opened and answer on, and that are not used yet.
    pub offered: usize,
}

/// Numbers of sessions on which this node answers one other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Answered {
    /// All.
    pub open: usize,
    /// Sessions on which something was asked.
    pub begun: usize,
}

impl TurnedSessions {
    /// From now on there is a server, which `wake` wakes.
    pub fn serve_with(&self, wake: impl Fn() + Send + 'static) {
        lock(&self.state).wake = Some(Box::new(wake));
    }

    /// Whether this node can answer.
    pub fn can_answer(&self) -> bool {
        let state = lock(&self.state);
        state.wake.is_some() && !state.closed
    }

    /// Keeps a session on which another node answers. Over a bound the oldest one gives way that the bound is about; in
    /// all, the oldest of the address that has most.
    pub fn keep(&self, offered: OfferedSession) {
        let mut gone = Vec::new();
        let mut state = lock(&self.state);
        if state.closed {
            gone.push(offered);
        } else {
            state.make_room(&offered, &mut gone);
            state.offered.push(offered);
        }
        drop(state);
        // The end of a session locks the peer table, so this comes after the lock is released.
        drop(gone);
    }

    /// The newest session on which `node` answers.
    pub fn take(&self, node: NodeId) -> Option<OfferedSession> {
        let mut gone = Vec::new();
        let mut state = lock(&self.state);
        let taken = loop {
            let Some(at) = state.offered.iter().rposition(|o| o.node == node) else { break None };
            let offered = state.offered.remove(at);
            if offered.is_usable() {
                offered.lease.take_up();
                break Some(offered);
            }
            gone.push(offered);
        };
        drop(state);
        drop(gone);
        taken
    }

    /// The nodes that offer to answer.
    pub fn offering(&self) -> Vec<NodeId> {
        lock(&self.state).offered.iter().map(|offered| offered.node).collect()
    }

    /// Ends the sessions that are no longer of use: cut off, closed by their peers, or without their places; and all with
    /// nodes that are `reached` without them.
    pub fn sweep(&self, reached: &[NodeId]) {
        let mut state = lock(&self.state);
        let is_over = |offered: &mut OfferedSession| !offered.is_usable() || reached.contains(&offered.node);
        let gone: Vec<OfferedSession> = state.offered.extract_if(.., is_over).collect();
        drop(state);
        drop(gone);
    }

    /// Hands a session over to the server, which answers on it from now on.
    pub fn answer(&self, answering: Answering) {
        let mut state = lock(&self.state);
        if state.closed {
            drop(state);
            return drop(answering);
        }
        state.to_answer.push(answering);
        if let Some(wake) = &state.wake {
            wake();
        }
    }

    /// The sessions that the server is to take over.
    pub fn to_answer(&self) -> Vec<Answering> {
        std::mem::take(&mut lock(&self.state).to_answer)
    }

    /// The sessions on which this node answers, by the node that may ask.
    pub fn answered(&self) -> HashMap<NodeId, Answered> {
        lock(&self.state).answering.clone()
    }

    /// Whether this node answers a node of `key` on a session of its own.
    pub fn is_answered(&self, key: PeerId) -> bool {
        lock(&self.state).answering.keys().any(|node| node.peer == key)
    }

    /// Ends the sessions on which this node answers `node`, if nothing was asked on any of them.
    pub fn end_unused(&self, node: NodeId) {
        let state = lock(&self.state);
        if state.answering.get(&node).is_some_and(|answered| answered.begun == 0) {
            let sockets = state.sockets.get(&node).into_iter().flatten().filter_map(Weak::upgrade);
            sockets.for_each(|socket| drop(socket.shutdown(Shutdown::Both)));
        }
    }

    /// The numbers as of now.
    pub fn stats(&self) -> TurnedStats {
        let state = lock(&self.state);
        let asking = state.answering.values().filter(|answered| answered.begun > 0).count();
        TurnedStats { answered: state.answering.len(), asking, offered: state.offered.len() }
    }

    /// Number of sessions on which others offer to answer.
    pub fn offered(&self) -> usize {
        lock(&self.state).offered.len()
    }

    /// Ends all that is kept, and keeps nothing more.
    pub fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        let gone = (std::mem::take(&mut state.offered), std::mem::take(&mut state.to_answer), state.wake.take());
        drop(state);
        drop(gone);
    }
}

impl TurnedState {
    /// Takes out what must give way to `offered`.
    fn make_room(&mut self, offered: &OfferedSession, gone: &mut Vec<OfferedSession>) {
        let (node, ip) = (offered.node, offered.ip());
        self.bound(TURNED_PER_NODE_MAX, gone, |o| o.node == node);
        self.bound(TURNED_PER_KEY_MAX, gone, |o| o.node.peer == node.peer);
        self.bound(TURNED_PER_ADDR_MAX, gone, |o| o.ip() == ip);
        if self.offered.len() >= TURNED_MAX {
            let mut by_addr: HashMap<IpAddr, usize> = HashMap::new();
            self.offered.iter().for_each(|o| *by_addr.entry(o.ip()).or_default() += 1);
            let most = by_addr.into_iter().max_by_key(|(_, count)| *count).map(|(ip, _)| ip);
            self.bound(1, gone, |o| Some(o.ip()) == most);
        }
    }

    /// Takes out the oldest of `which` if there are `max` of them.
    fn bound(&mut self, max: usize, gone: &mut Vec<OfferedSession>, which: impl Fn(&OfferedSession) -> bool) {
        if self.offered.iter().filter(|o| which(o)).count() >= max
            && let Some(at) = self.offered.iter().position(&which)
        {
            gone.push(self.offered.remove(at));
        }
    }
}

impl OfferedSession {
    fn ip(&self) -> IpAddr {
        self.end.addr.ip().to_canonical()
    }

    fn is_usable(&self) -> bool {
        !self.lease.is_lost() && self.end.is_silent()
    }
}

impl AnswerTicket {
    /// Counts a session with `node`, which `held` cuts off; while it is there, the node is `present`.
    pub fn new(sessions: &Arc<TurnedSessions>, node: NodeId, held: SessionGuards, present: impl Any + Send) -> Self {
        lock(&sessions.state).answering.entry(node).or_default().open += 1;
        let (sessions, _presence) = (sessions.clone(), Box::new(present));
        AnswerTicket { sessions, node, begun: false, socket: None, _held: held, _presence }
    }

    /// Lets [`TurnedSessions::end_unused`] shut down `socket`, the one of the session.
    pub fn ended_by(mut self, socket: TcpStream) -> Self {
        let socket = Arc::new(socket);
        lock(&self.sessions.state).sockets.entry(self.node).or_default().push(Arc::downgrade(&socket));
        self.socket = Some(socket);
        self
    }

    /// The other node asked something.
    pub fn begin(&mut self) {
        if !std::mem::replace(&mut self.begun, true)
            && let Some(answered) = lock(&self.sessions.state).answering.get_mut(&self.node)
        {
            answered.begun += 1;
        }
    }
}

impl Drop for AnswerTicket {
    fn drop(&mut self) {
        let mut state = lock(&self.sessions.state);
        self.socket = None;
        state.sockets.retain(|_, sockets| {
            sockets.retain(|socket| socket.strong_count() > 0);
            !sockets.is_empty()
        });
        if let Some(answered) = state.answering.get_mut(&self.node) {
            answered.open -= 1;
            answered.begun -= usize::from(self.begun);
            if answered.open == 0 {
                state.answering.remove(&self.node);
            }
        }
    }
}

impl std::fmt::Debug for AnswerTicket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AnswerTicket").field("node", &self.node).field("begun", &self.begun).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr, TcpListener};
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::identity::Keypair;
    use crate::net::{Channel, Tls};
    use crate::runtime;

    struct Place(Arc<AtomicBool>);

    impl Lease for Place {
        fn is_lost(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }

        fn take_up(&self) {}
    }

    /// Makes offers of any node from any address, and keeps the far ends open.
    struct Lab {
        sessions: TurnedSessions,
        listener: TcpListener,
        tls: Tls,
        far: Vec<TcpStream>,
        lost: Arc<AtomicBool>,
    }

    impl Lab {
        fn new() -> Self {
            let (listener, tls) = (TcpListener::bind((Ipv4Addr::LOCALHOST, 0)), Tls::new(&Keypair::generate()));
            let (sessions, lost) = (TurnedSessions::default(), Arc::default());
            Lab { sessions, listener: listener.unwrap(), tls: tls.unwrap(), far: vec![], lost }
        }

        fn offer(&mut self, node: NodeId, host: u8) {
            self.far.push(TcpStream::connect(self.listener.local_addr().unwrap()).unwrap());
            let socket = self.listener.accept().unwrap().0;
            socket.set_nonblocking(true).unwrap();
            let addr = SocketAddr::from(([10, 0, 0, host], 1000 + self.far.len() as u16));
            let end = TurnedEnd::asking(socket, Channel::accept(&self.tls).unwrap(), addr);
            let guards = (runtime::Shutdown::new().while_held(|| ()), None);
            let (lease, presence) = (Box::new(Place(self.lost.clone())), Box::new(()));
            self.sessions.keep(OfferedSession { node, end, lease, held: guards, presence });
        }
    }

    fn node(key: u8, instance: u64) -> NodeId {
        NodeId::new(PeerId([key; 32]), instance)
    }

    #[test]
    fn offers_are_bounded_by_node_key_and_address_and_the_newest_stays() {
        let mut lab = Lab::new();
        (0..5).for_each(|_| lab.offer(node(1, 1), 1));
        assert_eq!(lab.sessions.offered(), TURNED_PER_NODE_MAX);
        let newest = lab.sessions.take(node(1, 1)).unwrap();
        assert_eq!(newest.end.addr.port(), 1005);
        (0..20).for_each(|instance| lab.offer(node(2, instance), 2));
        assert_eq!(lab.sessions.offered(), TURNED_PER_NODE_MAX - 1 + TURNED_PER_KEY_MAX);
        (0..=TURNED_PER_ADDR_MAX as u8).for_each(|key| lab.offer(node(key + 10, 1), 3));
        assert_eq!(lab.sessions.offered(), TURNED_PER_NODE_MAX - 1 + TURNED_PER_KEY_MAX + TURNED_PER_ADDR_MAX);
        assert!(lab.sessions.take(node(10, 1)).is_none() && lab.sessions.take(node(11, 1)).is_some());
        lab.sessions.close();
        lab.offer(node(1, 1), 1);
        assert_eq!(lab.sessions.offered(), 0, "the node ends");
    }

    #[test]
    fn what_is_of_no_use_any_more_ends() {
        let mut lab = Lab::new();
        (1..=4).for_each(|key| lab.offer(node(key, 1), key));
        drop(lab.far.remove(0));
        std::io::Write::write_all(&mut lab.far[0], b"unasked").unwrap();
        let is_told = |at: usize| !lab.sessions.state.lock().unwrap().offered[at].end.is_silent();
        while !(is_told(0) && is_told(1)) {
            std::thread::yield_now();
        }
        assert!(lab.sessions.take(node(1, 1)).is_none(), "its peer has closed it");
        lab.sessions.sweep(&[node(3, 1)]);
        assert_eq!(lab.sessions.offering(), [node(4, 1)], "one spoke unasked, one can be dialed");
        lab.lost.store(true, Ordering::Relaxed);
        assert!(lab.sessions.take(node(4, 1)).is_none(), "its place went to a newcomer");
    }

    #[test]
    fn answers_are_counted_until_they_end() {
        let (sessions, of) = (Arc::new(TurnedSessions::default()), node(1, 1));
        let ticket = || AnswerTicket::new(&sessions, of, (runtime::Shutdown::new().while_held(|| ()), None), ());
        assert!(!sessions.can_answer());
        sessions.serve_with(|| ());
        assert!(sessions.can_answer() && !sessions.is_answered(of.peer));
        let (mut one, two) = (ticket(), ticket());
        (0..2).for_each(|_| one.begin());
        assert_eq!(sessions.answered()[&of], Answered { open: 2, begun: 1 });
        drop(one);
        assert_eq!(sessions.answered()[&of], Answered { open: 1, begun: 0 });
        drop(two);
        assert!(!sessions.is_answered(of.peer));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut far = listener.accept().unwrap().0;
        let waits = ticket().ended_by(near);
        sessions.end_unused(of);
        assert_eq!(std::io::Read::read(&mut far, &mut [0]).unwrap(), 0, "it gives way");
        drop(waits);
        assert!(lock(&sessions.state).sockets.is_empty());
        sessions.close();
        assert!(!sessions.can_answer());
    }
}
