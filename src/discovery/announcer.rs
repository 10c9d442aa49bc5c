//! What this node says of itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::content::Catalogue;
use crate::identity::{Keypair, NodeId};
use crate::limits::{ANNOUNCE_INTERVAL, TTL_INTERVALS, WAIT_MAX};
use crate::net::Waker;
use crate::proto::{Announce, Flags, SignedAnnounce};
use crate::runtime::{Latest, Shutdown};

/// Seals announces of one node, each newer than the one before. Shared by discovery and sessions.
pub(super) struct Announcer {
    keypair: Arc<Keypair>,
    network: String,
    instance: u64,
    port: u16,
    catalogue: Arc<Latest<Catalogue>>,
    last_seq: AtomicU64,
    ttl_s: AtomicU16,
    changed: AtomicBool,
}

impl Announcer {
    /// Speaks for the node (key of `keypair`, `instance`) in `network` that serves at `port`, 0 if nothing.
    pub(super) fn new(
        keypair: Arc<Keypair>,
        network: String,
        instance: u64,
        port: u16,
        catalogue: Arc<Latest<Catalogue>>,
    ) -> Self {
        Announcer {
            keypair,
            network,
            instance,
            port,
            catalogue,
            last_seq: AtomicU64::new(0),
            ttl_s: AtomicU16::new((ANNOUNCE_INTERVAL * TTL_INTERVALS).as_secs() as u16),
            changed: AtomicBool::new(false),
        }
    }

    /// The announce as of now. Costs a signature.
    pub(super) fn current(&self) -> SignedAnnounce {
        self.seal(Flags::default())
    }

    /// This node: its key and instance.
    pub(super) fn own(&self) -> NodeId {
        NodeId::new(self.keypair.peer_id(), self.instance)
    }

    /// The network that it belongs to.
    pub(super) fn network(&self) -> &str {
        &self.network
    }

    /// Where it serves; 0 if it serves nothing.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Of what it offers; 0 for nothing.
    pub(super) fn revision(&self) -> u64 {
        self.catalogue.get().revision()
    }

    pub(super) fn seal(&self, flags: Flags) -> SignedAnnounce {
        let announce = Announce {
            version: Announce::VERSION,
            network: self.network.clone(),
            peer: self.keypair.peer_id(),
            instance: self.instance,
            seq: self.next_seq(),
            ttl_s: self.ttl_s.load(Ordering::Relaxed),
            port: self.port,
            revision: self.revision(),
            flags,
        };
        SignedAnnounce::seal(&announce, &self.keypair)
    }

    pub(super) fn set_ttl_s(&self, ttl_s: u16) {
        self.ttl_s.store(ttl_s, Ordering::Relaxed);
    }

    /// Something that announces say has changed.
    pub(super) fn note_change(&self) {
        self.changed.store(true, Ordering::Release);
    }

    /// Whether something has changed since this was asked last.
    pub(super) fn take_change(&self) -> bool {
        self.changed.swap(false, Ordering::AcqRel)
    }

    /// The clock, but always over what it said before: clocks are set back.
    fn next_seq(&self) -> u64 {
        let clock = unix_ms();
        let next = |last: u64| Some(clock.max(last.saturating_add(1)));
        match self.last_seq.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
            Ok(last) | Err(last) => clock.max(last.saturating_add(1)),
        }
    }
}

/// Waits for new revisions of the catalogue and wakes who announces them; the body of its thread.
pub(super) fn watch(announcer: &Announcer, catalogue: &Latest<Catalogue>, shutdown: &Shutdown, wake: &Waker) {
    let (mut seen, first) = catalogue.numbered();
    let mut revision = first.revision();
    while !shutdown.has_begun() {
        // The shutdown wakes it.
        let Some((number, newest)) = catalogue.newer_than(seen, WAIT_MAX) else { continue };
        seen = number;
        if std::mem::replace(&mut revision, newest.revision()) != newest.revision() {
            announcer.note_change();
            wake();
        }
    }
}

/// The clock as Unix ms.
pub(super) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_announce_is_newer_than_the_one_before() {
        let catalogue = Arc::new(Latest::new(Catalogue::default()));
        let announcer = Announcer::new(Arc::new(Keypair::generate()), "gpb".into(), 7, 5, catalogue.clone());
        let opened: Vec<Announce> =
            (0..100).map(|_| SignedAnnounce::open(announcer.current().as_bytes()).unwrap().1).collect();
        assert!(opened.windows(2).all(|w| w[0].seq < w[1].seq));
        assert_eq!((opened[0].port, opened[0].revision, opened[0].ttl_s), (5, 0, 30));
        catalogue.publish(Catalogue::new(4, vec![]));
        assert_eq!(SignedAnnounce::open(announcer.current().as_bytes()).unwrap().1.revision, 4);
    }
}
