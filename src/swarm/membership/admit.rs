//! From received bytes to a verified announce: the checks, and the reasons to drop one.

use crate::identity::NodeId;
use crate::proto::{Announce, AnnounceError, SignedAnnounce};

/// Why an announce was not taken in.
///
/// ```
/// # let lan = gpb::testing::Lan::new()?;
/// # let node = lan.node()?;
/// use gpb::Dropped;
///
/// let stats = node.discovery_stats();
/// assert_eq!(stats.dropped(Dropped::Forged), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Dropped {
    /// Longer than any announce.
    #[error("oversized")]
    Oversized,
    /// Not an announce.
    #[error("malformed")]
    Malformed,
    /// Of a version that this one does not read.
    #[error("other version")]
    Version,
    /// Of another network.
    #[error("foreign network")]
    Network,
    /// Of this node itself.
    #[error("own")]
    Own,
    /// Its source sends too many datagrams.
    #[error("flood")]
    Flood,
    /// This node does not talk to that key.
    #[error("untrusted")]
    Untrusted,
    /// Signed by another key, or altered.
    #[error("forged")]
    Forged,
    /// Not the announce of the peer that sent it over a session.
    #[error("of another peer")]
    OtherPeer,
    /// Not newer than the last announce of that node.
    #[error("replayed")]
    Replayed,
    /// Over [`CLOCK_SKEW_MAX`](crate::limits::CLOCK_SKEW_MAX) in the past.
    #[error("stale")]
    Stale,
    /// Over [`CLOCK_SKEW_MAX`](crate::limits::CLOCK_SKEW_MAX) in the future.
    #[error("future")]
    Future,
    /// The key has too many live instances, all of them in a session.
    #[error("crowded key")]
    Crowded,
    /// The table is full, and no entry may be evicted for the newcomer.
    #[error("table full")]
    Full,
}

impl Dropped {
    /// All reasons, in the order of their declaration.
    pub const ALL: [Dropped; 14] = {
        use Dropped::*;
        [
            Oversized, Malformed, Version, Network, Own, Flood, Untrusted, Forged, OtherPeer, Replayed, Stale, Future,
            Crowded, Full,
        ]
    };

    /// Whether a clock is wrong, of this host or of the sender.
    pub(crate) fn is_of_clocks(self) -> bool {
        matches!(self, Dropped::Stale | Dropped::Future)
    }
}

impl From<AnnounceError> for Dropped {
    fn from(error: AnnounceError) -> Self {
        match error {
            AnnounceError::Oversized(_) => Dropped::Oversized,
            AnnounceError::Malformed => Dropped::Malformed,
            AnnounceError::Version(_) => Dropped::Version,
            AnnounceError::Forged => Dropped::Forged,
        }
    }
}

/// Reads an announce of `network`; its signature is not checked yet.
///
/// # Errors
/// [`Dropped`]: oversized, malformed, of another version or network.
pub fn parse_announce(bytes: &[u8], network: &str) -> Result<(SignedAnnounce, Announce), Dropped> {
    let (signed, announce) = SignedAnnounce::parse(bytes)?;
    if announce.network == network { Ok((signed, announce)) } else { Err(Dropped::Network) }
}

/// Reads the announce that `peer` (key and instance, the key proved by TLS) sent over a session,
/// and checks it. Costs a signature check, so call it without holding the table.
///
/// # Errors
/// [`Dropped`]: as [`parse_announce`], of another peer or instance, or forged.
pub fn open_announce(bytes: &[u8], network: &str, peer: NodeId) -> Result<(SignedAnnounce, Announce), Dropped> {
    let (signed, announce) = parse_announce(bytes, network)?;
    if NodeId::new(announce.peer, announce.instance) != peer {
        return Err(Dropped::OtherPeer);
    }
    signed.verify()?;
    Ok((signed, announce))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Keypair;
    use crate::identity::PeerId;
    use crate::proto::Flags;

    #[test]
    fn a_session_brings_only_its_own_announce() {
        let keypair = Keypair::generate();
        let announce = Announce {
            version: Announce::VERSION,
            network: "gpb".into(),
            peer: keypair.peer_id(),
            instance: 7,
            seq: 1,
            ttl_s: 30,
            port: 1,
            revision: 0,
            flags: Flags::default(),
        };
        let bytes = SignedAnnounce::seal(&announce, &keypair).as_bytes().to_vec();
        let own = NodeId::new(keypair.peer_id(), 7);
        assert_eq!(open_announce(&bytes, "gpb", own).unwrap().1, announce);
        assert_eq!(open_announce(&bytes, "lab", own), Err(Dropped::Network));
        assert_eq!(open_announce(&bytes, "gpb", NodeId::new(keypair.peer_id(), 8)), Err(Dropped::OtherPeer));
        assert_eq!(open_announce(&bytes, "gpb", NodeId::new(PeerId([0; 32]), 7)), Err(Dropped::OtherPeer));
        let forged = SignedAnnounce::seal(&announce, &Keypair::generate()).as_bytes().to_vec();
        assert_eq!(open_announce(&forged, "gpb", own), Err(Dropped::Forged));
    }

    #[test]
    fn each_reason_has_its_place() {
        for (i, reason) in Dropped::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, i);
        }
    }
}
