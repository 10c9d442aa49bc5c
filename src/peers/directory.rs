//! The only way into the peer table: the checks in their order, and what is reported of their
//! result.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::identity::{NodeId, PeerId};
use crate::limits::{ADDRS_PER_PEER_MAX, ANNOUNCE_LEN_MAX, PEERS_PER_ANSWER_MAX};
use crate::net::{Datagram, StreamError};
use crate::peers::own_announce::{OwnAnnounce, unix_ms};
use crate::peers::source_limit::SourceLimit;
use crate::peers::traffic::Traffic;
use crate::peers::turned::TurnedSessions;
use crate::proto::{Announce, Hello, PeerHint, SignedAnnounce};
use crate::runtime::keystore::TrustView;
use crate::runtime::{EventSender, Events, Subscription, Watch};
use crate::swarm::{
    ContactSource, Dropped, KnownPeer, PeerTable, Received, RefusalCause, TableChange, Via, crosses, is_far,
    open_announce, parse_announce,
};
use crate::sync::lock;

/// Takes in announces, whichever way they come, and knows the nodes that are there.
///
/// Signatures are verified before the table is locked: a check costs about 50 us, and every service
/// reads the table. A clock that differs and a key that is used on two hosts are logged here, once
/// per key.
pub struct Directory {
    own: OwnAnnounce,
    trust: Arc<TrustView>,
    /// Generation of the trusted set that the table was last compared with.
    trust_seen: AtomicU64,
    table: Watch<PeerTable>,
    events: EventSender,
    source_limit: Mutex<SourceLimit>,
    traffic: Traffic,
    turned: Arc<TurnedSessions>,
    own_duplicate_logged: AtomicBool,
    /// An announce was dropped because its clock differs too much.
    clocks_differ: AtomicBool,
    /// The number of the system's error for which the last dial got no socket; 0 if it got one.
    no_socket: AtomicI32,
}

/// What stands in the way of reaching peers on this side, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hindrance {
    /// The system gave no socket for the last dial, for this error (`errno`).
    NoSocket(i32),
    /// An announce was dropped because the clock of its sender and that of this host differ too
    /// much.
    ClocksDiffer,
}

/// A live session with a peer: while it exists, the peer neither expires nor leaves.
pub struct Presence {
    directory: Arc<Directory>,
    node: NodeId,
}

impl Directory {
    /// An empty directory of the node that `own` announces.
    pub fn new(own: OwnAnnounce, trust: Arc<TrustView>, events: EventSender) -> Arc<Self> {
        Arc::new(Directory {
            trust_seen: AtomicU64::new(trust.generation()),
            table: Watch::new(PeerTable::new(own.node())),
            own,
            trust,
            events,
            source_limit: Mutex::default(),
            traffic: Traffic::default(),
            turned: Arc::default(),
            own_duplicate_logged: AtomicBool::new(false),
            clocks_differ: AtomicBool::new(false),
            no_socket: AtomicI32::new(0),
        })
    }

    /// What this node says of itself.
    pub fn own(&self) -> &OwnAnnounce {
        &self.own
    }

    /// What was exchanged with which peer.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// The sessions whose roles are exchanged.
    pub fn turned(&self) -> &Arc<TurnedSessions> {
        &self.turned
    }

    /// The keys that this node talks to.
    pub fn trust(&self) -> &Arc<TrustView> {
        &self.trust
    }

    /// Reads the table. `look` must be short: all other threads wait.
    pub fn read<R>(&self, look: impl FnOnce(&PeerTable) -> R) -> R {
        self.table.read(look)
    }

    /// The number of changes of the table.
    pub fn changes(&self) -> u64 {
        self.table.changes()
    }

    /// Waits until there were more than `seen` changes, at most for `timeout`; returns their number
    /// now.
    pub fn wait_beyond(&self, seen: u64, timeout: Duration) -> u64 {
        self.table.wait_beyond(seen, timeout)
    }

    /// Calls `wake` at each later change of the table; `wake` must not block.
    pub fn subscribe(&self, wake: impl Fn() + Send + 'static) -> Subscription {
        self.table.subscribe(wake)
    }

    /// Wakes all threads that wait for a change, as if there had been one.
    pub fn wake(&self) {
        self.table.wake();
    }

    /// Takes in a datagram: cheap checks first, then the signature, then the table. Returns the
    /// announce, and whether it is new: the table has no other copy of it, such as the one that
    /// came over IPv4 when this came over IPv6.
    ///
    /// # Errors
    /// [`Dropped`]: the first check that failed.
    pub fn datagram(&self, bytes: &[u8], datagram: &Datagram, now: Instant) -> Result<(Announce, bool), Dropped> {
        debug_assert!(bytes.len() <= ANNOUNCE_LEN_MAX + 1);
        let (signed, announce) = parse_announce(bytes, self.own.network())?;
        if NodeId::new(announce.peer, announce.instance) == self.own.node() {
            return Err(Dropped::Own);
        }
        if !lock(&self.source_limit).allows(datagram.from.ip(), now) {
            return Err(Dropped::Flood);
        }
        if !self.trust.allows(&announce.peer) {
            return Err(Dropped::Untrusted);
        }
        let is_new = !self.table.read(|t| t.screen(&signed, &announce))?;
        if is_new {
            signed.verify()?;
        }
        if announce.peer == self.own.node().peer && !datagram.local && !datagram.from.ip().is_loopback() {
            self.warn_own_duplicate(datagram.from);
        }
        let mut addr = datagram.from;
        addr.set_port(announce.port);
        self.upsert(received(&signed, &announce, addr, Via::Datagram, now)).map(|()| (announce, is_new))
    }

    /// What stands in the way of reaching peers, if anything is known.
    pub fn hindrance(&self) -> Option<Hindrance> {
        match self.no_socket.load(Ordering::Relaxed) {
            0 => self.clocks_differ.load(Ordering::Relaxed).then_some(Hindrance::ClocksDiffer),
            errno => Some(Hindrance::NoSocket(errno)),
        }
    }

    /// Notes whether the system gave a socket for a dial, which failed with `error` if there is one.
    pub fn dialed(&self, error: Option<&StreamError>) {
        let errno = error.and_then(StreamError::exhausted).unwrap_or(0);
        self.no_socket.store(errno, Ordering::Relaxed);
    }

    /// Takes in what `peer`, whose key TLS proved, said of itself in a session that it opened from
    /// `from`. `None` if its `Hello` carries no announce or one that is dropped: the session is
    /// served all the same.
    pub fn hello(self: &Arc<Self>, peer: PeerId, hello: &Hello, from: SocketAddr) -> Option<Presence> {
        if hello.announce.is_empty() {
            return None;
        }
        let admitted = self.said(NodeId::new(peer, hello.instance), &hello.announce, from);
        admitted.inspect_err(|e| log::debug!("announce in Hello dropped peer={peer} addr={from} error=\"{e}\"")).ok()
    }

    /// Takes in what `node` said of itself in a session that it opened from `from`.
    ///
    /// # Errors
    /// [`Dropped`]: why the announce was not taken in.
    pub fn said(self: &Arc<Self>, node: NodeId, announce: &[u8], from: SocketAddr) -> Result<Presence, Dropped> {
        let (signed, announce) = open_announce(announce, self.own.network(), node)?;
        let mut addr = from;
        addr.set_port(announce.port);
        let change = self.table.touch(|table| {
            let change = table.upsert(&received(&signed, &announce, addr, Via::Hello, Instant::now()))?;
            table.session_opened(node);
            Ok::<_, Dropped>(self.emit(change))
        })?;
        self.report(node.peer, addr, change);
        Ok(Presence { directory: self.clone(), node })
    }

    /// Takes in what `node` at `addr` said of itself in a session that this node opened. TLS proved
    /// the key at that address, which counts even if the announce is dropped.
    ///
    /// # Errors
    /// [`Dropped`]: why the announce was not taken in.
    pub fn welcome(&self, node: NodeId, announce: &[u8], addr: SocketAddr, now: Instant) -> Result<(), Dropped> {
        let opened = open_announce(announce, self.own.network(), node);
        let (change, result) = self.table.touch(|table| {
            let (before, events) = (table.first_addr(node), table.proved(node, addr, now));
            let moved = self.events.emit_all(events) || table.first_addr(node) != before;
            let upsert = |(signed, announce)| table.upsert(&received(&signed, &announce, addr, Via::Session, now));
            let (change, result) = opened
                .and_then(upsert)
                .map_or_else(|e| (TableChange::default(), Err(e)), |change| (self.emit(change), Ok(())));
            (TableChange { notable: change.notable || moved, ..change }, result)
        });
        self.report(node.peer, addr, change);
        result
    }

    /// Takes in what the peer at `teller` said of others (PEX, BEP 11). Each announce is verified
    /// by its own signature; returns the nodes that are known because of it, or were before.
    pub fn hints(&self, hints: &[PeerHint], teller: IpAddr, now: Instant) -> Vec<NodeId> {
        let hints = hints.iter().take(PEERS_PER_ANSWER_MAX);
        // A hint without a usable address makes no peer known.
        let good = hints.filter_map(|hint| self.hint(hint, teller, now).ok());
        good.filter(|node| self.table.read(|t| t.knows(*node))).collect()
    }

    /// What to tell `asker` at `to` of others (PEX, BEP 11): the next page of the table, or of
    /// `among` if given.
    pub fn hints_for(&self, asker: NodeId, to: SocketAddr, among: Option<&[NodeId]>) -> Vec<PeerHint> {
        let Some(among) = among else {
            return self.table.touch(|table| table.hints(to.ip(), PEERS_PER_ANSWER_MAX));
        };
        let others = among.iter().filter(|node| **node != asker).take(PEERS_PER_ANSWER_MAX);
        self.table.read(|table| others.filter_map(|node| table.hint(*node, to.ip())).collect())
    }

    /// Notes that `node` answered a contact that was made for this reason.
    pub fn contacted(&self, node: NodeId, source: ContactSource) {
        self.table.touch(|t| t.contacted(node, source));
    }

    /// Notes that `peer` has no place for this node now.
    pub fn was_full(&self, peer: PeerId, now: Instant) {
        self.table.update(|t| t.was_full(peer, now));
    }

    /// Notes that `peer` refused this node, or is refused by it, and why.
    pub fn refused(&self, peer: PeerId, cause: RefusalCause) {
        self.table.update(|t| t.refused(peer, cause));
    }

    /// Notes that `node` could not be reached at `addr`: its other addresses come first from now
    /// on.
    pub fn failed(&self, node: NodeId, addr: SocketAddr, now: Instant) {
        self.table.touch(|t| t.failed(node, addr, now));
    }

    /// Notes that `node` dialed this one.
    pub fn dialed_here(&self, node: NodeId) {
        self.table.touch(|t| t.dialed_here(node));
    }

    /// Notes that `node` offers to answer on a session that it opened: its askers look again.
    pub fn offered(&self, node: NodeId) {
        self.table.update(|t| t.offered(node));
    }

    /// Notes that a session with `node` began.
    pub fn hold(self: &Arc<Self>, node: NodeId) -> Presence {
        self.table.touch(|t| t.session_opened(node));
        Presence { directory: self.clone(), node }
    }

    /// Notes that the user named `count` peers, which are contacted now for the first time.
    pub fn expect(&self, count: usize) {
        self.table.update(|t| t.expect(count));
    }

    /// Notes that one of these peers was contacted, or seems not to be there.
    pub fn expected_came(&self) {
        self.table.update(PeerTable::expected_came);
    }

    /// Ends peers that fell silent or are no longer trusted. To be called about once a second.
    pub fn housekeep(&self, now: Instant) {
        let some = self.table.touch(|t| self.events.emit_all(t.expire(now)));
        self.wake_if(some);
        if self.trust_seen.load(Ordering::Acquire) != self.trust.generation() {
            self.forget_untrusted();
        }
        self.events.log_left_out(self.own.tag());
    }

    /// Ends peers that are no longer trusted. Wakes all waiters: a download must cut off its
    /// sessions with them.
    pub fn forget_untrusted(&self) {
        self.trust_seen.store(self.trust.generation(), Ordering::Release);
        self.table.update(|t| self.events.emit_all(t.retain(|peer| self.trust.allows(peer))));
        self.events.log_peers(self.own.tag());
    }

    fn hint(&self, hint: &PeerHint, teller: IpAddr, now: Instant) -> Result<NodeId, Dropped> {
        let (signed, announce) = parse_announce(&hint.announce, self.own.network())?;
        if !self.trust.allows(&announce.peer) {
            return Err(Dropped::Untrusted);
        }
        match self.table.read(|t| t.screen(&signed, &announce)) {
            Ok(true) => {}
            // An older announce, as a newer one, may bring an address.
            Ok(false) | Err(Dropped::Replayed) => signed.verify()?,
            Err(reason) => return Err(reason),
        }
        // A loopback or link-local address of the teller means another host here.
        let addrs = hint.addrs.iter().filter(|a| a.port() != 0 && crosses(a.ip(), teller));
        for addr in addrs.take(ADDRS_PER_PEER_MAX) {
            let via = if is_far(addr.ip(), teller) { Via::FarHint } else { Via::Hint };
            self.upsert(received(&signed, &announce, *addr, via, now))?;
        }
        Ok(NodeId::new(announce.peer, announce.instance))
    }

    fn upsert(&self, received: Received<'_>) -> Result<(), Dropped> {
        let taken = self.table.touch(|t| t.upsert(&received).map(|change| self.emit(change)));
        let (peer, addr, tag) = (received.announce.peer, received.addr, self.own.tag());
        let is_first = |reason: &Dropped| reason.is_of_clocks() && !self.clocks_differ.swap(true, Ordering::Relaxed);
        if taken.as_ref().is_err_and(is_first) {
            log::warn!("clocks differ by more than a day, announces are dropped peer={peer} addr={addr}{tag}");
        }
        self.report(peer, addr, taken?);
        Ok(())
    }

    /// The events from now on, behind the peers that are in the table now.
    pub fn watch(&self) -> Events {
        // Events of peers are sent while the table is locked, so none is lost in between.
        self.table.read(|t| self.events.subscribe(t.peers().into_iter().map(KnownPeer::from).collect()))
    }

    /// Sends the events of a change. To be called with the table locked: so subscribers get events
    /// in the order of the changes.
    fn emit(&self, mut change: TableChange) -> TableChange {
        change.notable |= self.events.emit_all(change.events.drain(..));
        change
    }

    /// Logs what an announce of `peer` at `addr` changed, and wakes the threads that wait for it.
    fn report(&self, peer: PeerId, addr: SocketAddr, change: TableChange) {
        let TableChange { events: _, notable, skew_ms, duplicate_key } = change;
        if let Some(skew_ms) = skew_ms {
            log::warn!("clocks differ peer={peer} addr={addr} skew_ms={skew_ms}{}", self.own.tag());
        }
        if let Some((one, other)) = duplicate_key {
            log::warn!("one key seems to be in use on two hosts peer={peer} one={one} other={other}");
        }
        self.wake_if(notable);
    }

    /// Wakes the threads that wait for the table if its change is `notable`, and logs it.
    fn wake_if(&self, notable: bool) {
        if notable {
            self.table.wake();
        }
        self.events.log_peers(self.own.tag());
    }

    fn warn_own_duplicate(&self, from: SocketAddr) {
        if !self.own_duplicate_logged.swap(true, Ordering::Relaxed) {
            let peer = self.own.node().peer;
            log::warn!("this node's key is in use on another host, too; make one key a host peer={peer} addr={from}");
        }
    }
}

/// An announce that came now.
fn received<'a>(
    signed: &'a SignedAnnounce,
    announce: &'a Announce,
    addr: SocketAddr,
    via: Via,
    now: Instant,
) -> Received<'a> {
    Received { signed, announce, addr, via, unix_ms: unix_ms(), now }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let (table, events) = (&self.directory.table, &self.directory.events);
        let some = table.touch(|t| events.emit_all(t.session_closed(self.node, Instant::now())));
        self.directory.wake_if(some);
    }
}

impl fmt::Debug for Presence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presence").field("node", &self.node).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
