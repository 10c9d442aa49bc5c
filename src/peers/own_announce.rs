//! What this node says of itself.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::content::Catalogue;
use crate::identity::{Keypair, NodeId};
use crate::limits::{ANNOUNCE_INTERVAL, CLOCK_SKEW_MAX, TTL_INTERVALS, WIRE_VERSION};
use crate::proto::{Announce, DhtItem, DhtNames, Flags, Hello, SignedAnnounce, encode_dht_value};
use crate::runtime::{Subscription, Watch};

/// Seals the announces of this node, each newer than the one before. Datagrams, `Hello` and
/// `Welcome` carry them.
pub struct OwnAnnounce {
    keypair: Arc<Keypair>,
    network: String,
    agent: String,
    instance: u64,
    port: u16,
    catalogue: Arc<Watch<Arc<Catalogue>>>,
    last_seq: AtomicU64,
    ttl_s: AtomicU16,
}

/// What a node tells of itself that does not change while it runs.
pub struct OwnIdentity {
    /// The key that signs the announces.
    pub keypair: Arc<Keypair>,
    /// The node's instance: random per start.
    pub instance: u64,
    /// The network that the node belongs to, a [network
    /// name](crate::proto::Announce::is_network_name).
    pub network: String,
    /// Program and version, for the logs of other nodes.
    pub agent: String,
    /// The TCP port where the node serves; 0 if it serves nothing.
    pub port: u16,
}

impl OwnAnnounce {
    /// Announces the node `identity`, which offers `catalogue`.
    pub fn new(identity: OwnIdentity, catalogue: Arc<Watch<Arc<Catalogue>>>) -> Self {
        let OwnIdentity { keypair, instance, network, agent, port } = identity;
        RUNNING.fetch_add(1, Ordering::Relaxed);
        let ttl_s = AtomicU16::new((ANNOUNCE_INTERVAL * TTL_INTERVALS).as_secs() as u16);
        OwnAnnounce { keypair, network, agent, instance, port, catalogue, last_seq: AtomicU64::new(0), ttl_s }
    }

    /// This node: its key and instance.
    pub fn node(&self) -> NodeId {
        NodeId::new(self.keypair.peer_id(), self.instance)
    }

    /// What log lines about peers end with: which node they are of, while this process has several.
    pub fn tag(&self) -> NodeTag {
        NodeTag((RUNNING.load(Ordering::Relaxed) > 1).then(|| self.node()))
    }

    /// The network that the node belongs to.
    pub fn network(&self) -> &str {
        &self.network
    }

    /// Program and version.
    pub fn agent(&self) -> &str {
        &self.agent
    }

    /// The TCP port where the node serves; 0 if it serves nothing.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Revision of the catalogue; 0 while the node offers nothing.
    pub fn revision(&self) -> u64 {
        self.catalogue.get().revision()
    }

    /// Calls `wake` whenever the catalogue may have a new revision; `wake` must not block.
    pub fn on_revision(&self, wake: impl Fn() + Send + 'static) -> Subscription {
        self.catalogue.subscribe(wake)
    }

    /// The announce as of now, without flags. Costs a signature.
    pub fn current(&self) -> SignedAnnounce {
        self.seal(Flags::default())
    }

    /// The announce as of now, with `flags`. Costs a signature.
    pub fn seal(&self, flags: Flags) -> SignedAnnounce {
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

    /// The first request of a session, with the announce as of now. Costs a signature.
    pub fn hello(&self) -> Hello {
        Hello {
            version: WIRE_VERSION,
            network: self.network.clone(),
            instance: self.instance,
            announce: self.current().as_bytes().to_vec(),
            agent: self.agent.clone(),
        }
    }

    /// The item of this node in a DHT: it answers at `addrs`. Costs two signatures.
    pub fn dht_item(&self, names: &DhtNames, addrs: &[SocketAddr], seq: i64) -> DhtItem {
        let value = encode_dht_value(&self.current(), addrs);
        let signature = self.keypair.sign(&names.signed_part(seq, &value));
        DhtItem { seq, value, signature }
    }

    /// Sets the time to live, in seconds, of the announces that follow.
    pub fn set_ttl_s(&self, ttl_s: u16) {
        self.ttl_s.store(ttl_s, Ordering::Relaxed);
    }

    fn next_seq(&self) -> u64 {
        let clock = unix_ms();
        match self.last_seq.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(seq_after(last, clock))) {
            Ok(last) | Err(last) => seq_after(last, clock),
        }
    }
}

impl Drop for OwnAnnounce {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The nodes of this process.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Shown as ` node=` with the node, or as nothing where no other one could be meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeTag(Option<NodeId>);

impl fmt::Display for NodeTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|node| write!(f, " node={node}"))
    }
}

/// The sequence number that follows `last`: the clock in Unix ms, but always greater than `last`,
/// since a clock may be set back.
///
/// Where `last` is more than [`CLOCK_SKEW_MAX`] ahead, the clock was wrong and has been set right.
/// Then the numbers start again: nodes with the right time dropped the earlier ones as too far in
/// the future, so none of them takes the new ones for replays.
fn seq_after(last: u64, clock: u64) -> u64 {
    if last.saturating_sub(clock) > CLOCK_SKEW_MAX.as_millis() as u64 {
        return clock;
    }
    clock.max(last.saturating_add(1))
}

/// The clock in Unix ms.
pub(crate) fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_set_right_counts_at_once() {
        let hour = 3_600_000;
        let (right, wrong) = (1000 * hour, 1030 * hour);
        assert_eq!(seq_after(wrong, wrong + 5), wrong + 5);
        assert_eq!(seq_after(wrong, right), right, "30 h ahead: every other node dropped these");
        assert_eq!(seq_after(right + 23 * hour, right), right + 23 * hour + 1, "others may have taken these in");
        assert_eq!(seq_after(0, right), right);
        assert_eq!(seq_after(u64::MAX, right), right);
    }

    #[test]
    fn each_announce_is_newer_than_the_one_before() {
        let catalogue = Arc::new(Watch::new(Arc::new(Catalogue::default())));
        let identity = OwnIdentity {
            keypair: Arc::new(Keypair::generate()),
            instance: 7,
            network: "gpb".into(),
            agent: "test".into(),
            port: 5,
        };
        let own = OwnAnnounce::new(identity, catalogue.clone());
        let opened: Vec<Announce> =
            (0..100).map(|_| SignedAnnounce::open(own.current().as_bytes()).unwrap().1).collect();
        assert!(opened.windows(2).all(|w| w[0].seq < w[1].seq));
        assert_eq!((opened[0].port, opened[0].revision, opened[0].ttl_s), (5, 0, 30));
        catalogue.publish(Catalogue::new(4, vec![]));
        assert_eq!(SignedAnnounce::open(own.current().as_bytes()).unwrap().1.revision, 4);
        // Other tests have nodes of their own, so that only the one with a second node is certain.
        let identity = OwnIdentity {
            keypair: Arc::new(Keypair::generate()),
            instance: 8,
            network: "gpb".into(),
            agent: "test".into(),
            port: 5,
        };
        let other = OwnAnnounce::new(identity, catalogue);
        assert_eq!(own.tag().to_string(), format!(" node={}", own.node()));
        assert_ne!(own.tag(), other.tag());
        assert_eq!(NodeTag(None).to_string(), "");
    }
}
