//! From what was heard to a peer in the table: the checks in their order, and telling what came of it.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::discovery::announcer::{Announcer, unix_ms};
use crate::discovery::sources::Sources;
use crate::identity::{NodeId, PeerId};
use crate::limits::{ADDRS_PER_PEER_MAX, ANNOUNCE_LEN_MAX, PEERS_PER_ANSWER_MAX};
use crate::net::Datagram;
use crate::proto::{Announce, PeerHint, SignedAnnounce};
use crate::runtime::keystore::Trust;
use crate::runtime::{Events, Watched};
use crate::swarm::{Dropped, Event, Heard, PeerTable, Via, crosses, open_announce, parse_announce};

/// Takes announces in, whichever way they came.
pub(super) struct Intake {
    announcer: Arc<Announcer>,
    trust: Arc<Trust>,
    trust_seen: AtomicU64,
    table: Arc<Watched<PeerTable>>,
    events: Events,
    sources: Mutex<Sources>,
    own_twin_told: AtomicBool,
}

impl Intake {
    pub(super) fn new(
        announcer: Arc<Announcer>,
        trust: Arc<Trust>,
        table: Arc<Watched<PeerTable>>,
        events: Events,
    ) -> Self {
        let trust_seen = AtomicU64::new(trust.generation());
        let (sources, own_twin_told) = (Mutex::default(), AtomicBool::new(false));
        Intake { announcer, trust, trust_seen, table, events, sources, own_twin_told }
    }

    /// Takes in a datagram: cheap checks first, then the signature, then the table.
    pub(super) fn datagram(&self, bytes: &[u8], datagram: &Datagram, now: Instant) -> Result<Announce, Dropped> {
        debug_assert!(bytes.len() <= ANNOUNCE_LEN_MAX + 1);
        let (signed, announce) = parse_announce(bytes, self.announcer.network())?;
        if NodeId::new(announce.peer, announce.instance) == self.announcer.own() {
            return Err(Dropped::Own);
        }
        if !self.sources.lock().unwrap_or_else(PoisonError::into_inner).allows(datagram.from.ip(), now) {
            return Err(Dropped::Flood);
        }
        if !self.trust.allows(&announce.peer) {
            return Err(Dropped::Untrusted);
        }
        if !self.table.read(|t| t.screen(&signed, &announce))? {
            signed.verify()?;
        }
        if announce.peer == self.announcer.own().peer && !datagram.local && !datagram.from.ip().is_loopback() {
            self.warn_own_twin(datagram.from);
        }
        let mut addr = datagram.from;
        addr.set_port(announce.port);
        self.upsert(&signed, &announce, addr, Via::Datagram, now)?;
        Ok(announce)
    }

    /// Takes in what `peer` at `addr` said of itself in a session that this node opened; TLS proved the key.
    pub(super) fn welcome(&self, bytes: &[u8], peer: NodeId, addr: SocketAddr, now: Instant) -> Result<(), Dropped> {
        let (signed, announce) = open_announce(bytes, self.announcer.network(), peer)?;
        self.upsert(&signed, &announce, addr, Via::Session, now)
    }

    /// Takes in what the peer at `teller` said of others. Each word is checked by its own signature; returns whom it was
    /// good for.
    pub(super) fn hints(&self, hints: &[PeerHint], teller: IpAddr, now: Instant) -> Vec<NodeId> {
        let hints = hints.iter().take(PEERS_PER_ANSWER_MAX);
        // Without an address that can be used a hint makes nobody known.
        let good = hints.filter_map(|hint| self.hint(hint, teller, now).ok());
        good.filter(|node| self.table.read(|t| t.knows(*node))).collect()
    }

    fn hint(&self, hint: &PeerHint, teller: IpAddr, now: Instant) -> Result<NodeId, Dropped> {
        let (signed, announce) = parse_announce(&hint.announce, self.announcer.network())?;
        if !self.trust.allows(&announce.peer) {
            return Err(Dropped::Untrusted);
        }
        match self.table.read(|t| t.screen(&signed, &announce)) {
            Ok(true) => {}
            // Older than what is known here, or news: both may bring an address.
            Ok(false) | Err(Dropped::Replayed) => signed.verify()?,
            Err(reason) => return Err(reason),
        }
        // What is loopback or link-local to the teller is something else here.
        let addrs = hint.addrs.iter().filter(|a| a.port() != 0 && crosses(a.ip(), teller));
        for addr in addrs.take(ADDRS_PER_PEER_MAX) {
            self.upsert(&signed, &announce, *addr, Via::Hint, now)?;
        }
        Ok(NodeId::new(announce.peer, announce.instance))
    }

    /// What must be done about once a second: ends peers that fell silent or are no longer trusted.
    pub(super) fn housekeep(&self, now: Instant) {
        let mut events = self.table.touch(|t| t.expire(now));
        let generation = self.trust.generation();
        if self.trust_seen.swap(generation, Ordering::AcqRel) != generation {
            events.extend(self.table.touch(|t| t.retain(|peer| self.trust.allows(peer))));
        }
        let news = !events.is_empty();
        self.tell(events, news);
        self.events.log_left_out();
    }

    /// Notes that a peer refused this node, or is refused by it.
    pub(super) fn refused(&self, peer: PeerId, addr: SocketAddr, now: Instant) {
        self.table.update(|t| t.refused(peer, addr, now));
    }

    pub(super) fn trusts(&self, peer: &PeerId) -> bool {
        self.trust.allows(peer)
    }

    fn upsert(
        &self,
        signed: &SignedAnnounce,
        announce: &Announce,
        addr: SocketAddr,
        via: Via,
        now: Instant,
    ) -> Result<(), Dropped> {
        let heard = self.table.touch(|t| t.upsert(signed, announce, addr, via, unix_ms(), now))?;
        let Heard { events, news, skew_ms, twins } = heard;
        let peer = announce.peer;
        if let Some(skew_ms) = skew_ms {
            log::warn!("clocks differ peer={peer} addr={addr} skew_ms={skew_ms}");
        }
        if let Some((one, other)) = twins {
            log::warn!("one key seems to be in use on two hosts peer={peer} one={one} other={other}");
        }
        self.tell(events, news);
        Ok(())
    }

    fn tell(&self, events: Vec<Event>, news: bool) {
        self.events.emit_all(events);
        if news {
            self.table.wake();
        }
    }

    fn warn_own_twin(&self, from: SocketAddr) {
        if !self.own_twin_told.swap(true, Ordering::Relaxed) {
            let peer = self.announcer.own().peer;
            log::warn!("this node's key is in use on another host, too; make one key a host peer={peer} addr={from}");
        }
    }
}
