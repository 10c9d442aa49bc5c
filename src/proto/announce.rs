//! The announce: what a peer says of itself by multicast, signed.

use crate::identity::{Keypair, PeerId};

/// What a peer says of itself.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Announce {
    /// Version of the announce, 1.
    pub version: u8,
    /// Name of the network; others are ignored.
    pub network: String,
    /// The key that signs.
    pub peer: PeerId,
    /// Random per start: a node is (peer, instance).
    pub instance: u64,
    /// Unix ms at sending, forced to grow.
    pub seq: u64,
    /// The peer expires so many seconds after the last announce.
    pub ttl_s: u16,
    /// TCP port where it serves; 0 when it serves nothing.
    pub port: u16,
    /// Revision of its catalogue.
    pub revision: u64,
    /// What kind of announce this is.
    pub flags: Flags,
}

/// Bits of an announce; unknown ones are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Flags(pub u16);

impl Flags {
    /// Asks everyone to announce itself.
    pub const QUERY: Flags = Flags(1);
    /// With `QUERY`: answer to the sender's address instead of the group.
    pub const UNICAST: Flags = Flags(2);
    /// The instance ends.
    pub const GOODBYE: Flags = Flags(4);

    /// Whether all bits of `other` are set.
    pub fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A sealed announce: the bytes as sent and received, at most
/// [`ANNOUNCE_LEN_MAX`](crate::limits::ANNOUNCE_LEN_MAX).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedAnnounce {
    bytes: Vec<u8>,
}

/// Why bytes are no announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnnounceError {
    /// To be split up.
    #[error("malformed announce")]
    Malformed,
}

impl SignedAnnounce {
    /// Signs `announce`.
    pub fn seal(announce: &Announce, keypair: &Keypair) -> Self {
        todo!("{announce:?} {}", keypair.peer_id())
    }

    /// The bytes on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads fields without checking the signature, so that cheap checks come first.
    ///
    /// # Errors
    /// [`AnnounceError`]
    pub fn parse(bytes: &[u8]) -> Result<(Self, Announce), AnnounceError> {
        todo!("{}", bytes.len())
    }

    /// Whether the signature is that of the key that the announce names.
    pub fn verify(&self) -> Result<(), AnnounceError> {
        todo!()
    }
}
