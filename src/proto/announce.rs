//! The announce: the signed datagram by which a node makes itself known.
//!
//! Sealed form: [`MAGIC`] (4 bytes), an Ed25519 signature (64 bytes), the postcard form of
//! [`Announce`]. The signature covers a domain string and the postcard bytes *as received*, so a
//! later version may append fields that this one forwards unread. Trust and novelty are decided
//! elsewhere: by the trusted keys and by the peer table.

use std::sync::Arc;

use crate::identity::{Keypair, PeerId};
use crate::limits::{ANNOUNCE_LEN_MAX, NETWORK_LEN_MAX};

/// A sealed announce: the bytes as sent and received, at most
/// [`ANNOUNCE_LEN_MAX`]. Clones share the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedAnnounce {
    bytes: Arc<[u8]>,
    peer: PeerId,
}

/// The content of an announce.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Announce {
    /// Version of the announce, [`Announce::VERSION`].
    pub version: u8,
    /// Name of the network; announces of other networks are ignored.
    pub network: String,
    /// The key that signs.
    pub peer: PeerId,
    /// Random per start: a node is the pair of key and instance.
    pub instance: u64,
    /// Unix ms at sending, forced to grow.
    pub seq: u64,
    /// Seconds after its last announce at which the node expires.
    pub ttl_s: u16,
    /// TCP port on which the node serves; 0 if it serves nothing.
    pub port: u16,
    /// Revision of its catalogue.
    pub revision: u64,
    /// What kind of announce this is.
    pub flags: Flags,
}

/// Bits of an announce; unknown ones are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Flags(pub u16);

/// Why bytes are no announce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnnounceError {
    /// Longer than [`ANNOUNCE_LEN_MAX`] bytes.
    #[error("announce of {0} bytes is over the bound")]
    Oversized(usize),
    /// Not the sealed form of an announce.
    #[error("malformed announce")]
    Malformed,
    /// Of a version that this one does not read.
    #[error("announce of version {0}")]
    Version(u8),
    /// The signature is not that of the key that the announce names: forged, or altered on the way.
    #[error("announce with a false signature")]
    Forged,
}

impl Announce {
    /// The version that this code reads and writes.
    pub const VERSION: u8 = 1;

    /// Whether `name` can be the name of a network: 1 to
    /// [`NETWORK_LEN_MAX`] bytes without control characters.
    pub fn is_network_name(name: &str) -> bool {
        (1..=NETWORK_LEN_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
    }
}

impl Flags {
    /// Asks every node to announce itself.
    pub const QUERY: Flags = Flags(1);
    /// With `QUERY`: answer to the sender's address instead of the group.
    pub const UNICAST: Flags = Flags(2);
    /// The instance ends.
    pub const GOODBYE: Flags = Flags(4);

    /// Whether all bits of `other` are set.
    pub fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// The bits of both.
    pub fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }
}

impl SignedAnnounce {
    /// Signs `announce`. Its network must be a [network name](Announce::is_network_name); no node
    /// reads another.
    pub fn seal(announce: &Announce, keypair: &Keypair) -> Self {
        debug_assert!(Announce::is_network_name(&announce.network));
        // Serializing plain data into a Vec cannot fail.
        let payload = postcard::to_stdvec(announce).unwrap_or_default();
        let signature = keypair.sign(&signed_part(&payload));
        SignedAnnounce { bytes: [&MAGIC[..], &signature, &payload].concat().into(), peer: announce.peer }
    }

    /// The bytes on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads fields without checking the signature, so that cheap checks come first.
    ///
    /// # Errors
    /// All of [`AnnounceError`] but `Forged`.
    pub fn parse(bytes: &[u8]) -> Result<(Self, Announce), AnnounceError> {
        if bytes.len() > ANNOUNCE_LEN_MAX {
            return Err(AnnounceError::Oversized(bytes.len()));
        }
        let payload = bytes.get(PAYLOAD_AT..).ok_or(AnnounceError::Malformed)?;
        if !bytes.starts_with(&MAGIC) {
            return Err(AnnounceError::Malformed);
        }
        match payload.first() {
            Some(&Announce::VERSION) => {}
            Some(&other) => return Err(AnnounceError::Version(other)),
            None => return Err(AnnounceError::Malformed),
        }
        let (announce, _later): (Announce, &[u8]) =
            postcard::take_from_bytes(payload).map_err(|_| AnnounceError::Malformed)?;
        if !Announce::is_network_name(&announce.network) {
            return Err(AnnounceError::Malformed);
        }
        Ok((SignedAnnounce { bytes: bytes.into(), peer: announce.peer }, announce))
    }

    /// Checks the signature with the key that the announce names. Strict: keys of small order and a
    /// second form of one signature are refused.
    ///
    /// # Errors
    /// [`AnnounceError::Forged`]
    pub fn verify(&self) -> Result<(), AnnounceError> {
        let signature: &[u8; 64] =
            self.bytes.get(SIGNATURE_AT..PAYLOAD_AT).and_then(|s| s.try_into().ok()).ok_or(AnnounceError::Malformed)?;
        let message = signed_part(self.bytes.get(PAYLOAD_AT..).unwrap_or_default());
        if self.peer.verify(&message, signature) { Ok(()) } else { Err(AnnounceError::Forged) }
    }

    /// Reads an announce and checks its signature.
    ///
    /// # Errors
    /// [`AnnounceError`]
    pub fn open(bytes: &[u8]) -> Result<(Self, Announce), AnnounceError> {
        let (signed, announce) = Self::parse(bytes)?;
        signed.verify()?;
        Ok((signed, announce))
    }
}

/// The bytes that the signature covers. The domain keeps a signature made for another purpose from
/// being valid here.
fn signed_part(payload: &[u8]) -> Vec<u8> {
    [DOMAIN, payload].concat()
}

/// First bytes of a sealed announce.
const MAGIC: [u8; 4] = *b"GPBa";
/// Domain separation: precedes the payload in the signed bytes.
const DOMAIN: &[u8] = b"gpb announce v1\0";
const SIGNATURE_AT: usize = MAGIC.len();
const PAYLOAD_AT: usize = SIGNATURE_AT + 64;

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn announce(keypair: &Keypair) -> Announce {
        Announce {
            version: Announce::VERSION,
            network: "gpb".into(),
            peer: keypair.peer_id(),
            instance: 7,
            seq: 1_700_000_000_000,
            ttl_s: 30,
            port: 27420,
            revision: 3,
            flags: Flags::QUERY.with(Flags::UNICAST),
        }
    }

    /// As long as an announce can be.
    pub(in crate::proto) fn largest(keypair: &Keypair) -> Announce {
        Announce {
            network: "n".repeat(NETWORK_LEN_MAX),
            instance: u64::MAX,
            seq: u64::MAX,
            ttl_s: u16::MAX,
            port: u16::MAX,
            revision: u64::MAX,
            flags: Flags(u16::MAX),
            ..announce(keypair)
        }
    }

    /// Seals any payload, as a peer with a key but without manners could.
    fn seal_bytes(payload: &[u8], keypair: &Keypair) -> Vec<u8> {
        [&MAGIC[..], &keypair.sign(&signed_part(payload)), payload].concat()
    }

    #[test]
    fn a_sealed_announce_opens_to_itself() {
        let keypair = Keypair::generate();
        for a in [announce(&keypair), largest(&keypair)] {
            let sealed = SignedAnnounce::seal(&a, &keypair);
            assert!(sealed.as_bytes().len() <= ANNOUNCE_LEN_MAX / 2, "room for later fields");
            assert_eq!(SignedAnnounce::open(sealed.as_bytes()), Ok((sealed, a)));
        }
    }

    #[test]
    fn another_key_cannot_speak_for_a_peer() {
        let (keypair, other) = (Keypair::generate(), Keypair::generate());
        let sealed = SignedAnnounce::seal(&announce(&keypair), &other);
        assert_eq!(SignedAnnounce::open(sealed.as_bytes()), Err(AnnounceError::Forged));
    }

    #[test]
    fn a_signature_without_the_domain_does_not_count() {
        let keypair = Keypair::generate();
        let payload = postcard::to_stdvec(&announce(&keypair)).unwrap();
        let bytes = [&MAGIC[..], &keypair.sign(&payload), &payload].concat();
        assert_eq!(SignedAnnounce::open(&bytes), Err(AnnounceError::Forged));
    }

    #[test]
    fn fields_of_a_later_version_are_kept_and_covered() {
        let keypair = Keypair::generate();
        let payload = [&postcard::to_stdvec(&announce(&keypair)).unwrap()[..], b"later"].concat();
        let bytes = seal_bytes(&payload, &keypair);
        let (sealed, read) = SignedAnnounce::open(&bytes).unwrap();
        assert_eq!((sealed.as_bytes(), read), (&bytes[..], announce(&keypair)));
        assert_eq!(SignedAnnounce::open(&bytes[..bytes.len() - 1]), Err(AnnounceError::Forged));
    }

    #[test]
    fn what_cannot_be_an_announce_is_told_apart() {
        let keypair = Keypair::generate();
        let good = SignedAnnounce::seal(&announce(&keypair), &keypair).as_bytes().to_vec();
        let parse = |bytes: &[u8]| SignedAnnounce::parse(bytes).map(|_| ());
        assert_eq!(parse(&vec![0; ANNOUNCE_LEN_MAX + 1]), Err(AnnounceError::Oversized(ANNOUNCE_LEN_MAX + 1)));
        let padded = seal_bytes(&[&good[PAYLOAD_AT..], &vec![0; ANNOUNCE_LEN_MAX]].concat(), &keypair);
        assert_eq!(parse(&padded), Err(AnnounceError::Oversized(padded.len())));
        for n in 0..good.len() {
            assert_eq!(parse(&good[..n]), Err(AnnounceError::Malformed), "cut to {n}");
        }
        let mut other_magic = good.clone();
        other_magic[0] ^= 1;
        assert_eq!(parse(&other_magic), Err(AnnounceError::Malformed));
        let mut later = good.clone();
        later[PAYLOAD_AT] = 2;
        assert_eq!(parse(&later), Err(AnnounceError::Version(2)));
        for network in ["", "a\nb", &"n".repeat(NETWORK_LEN_MAX + 1)] {
            let payload = postcard::to_stdvec(&Announce { network: network.into(), ..announce(&keypair) }).unwrap();
            assert_eq!(parse(&seal_bytes(&payload, &keypair)), Err(AnnounceError::Malformed), "{network:?}");
        }
    }

    /// With the all-zero key, which is of small order, a signature of zeros satisfies lax
    /// verifiers.
    #[test]
    fn small_order_keys_speak_for_nobody() {
        let keypair = Keypair::generate();
        for first in [0u8, 1] {
            let mut key = [0; 32];
            key[0] = first;
            let payload = postcard::to_stdvec(&Announce { peer: PeerId(key), ..announce(&keypair) }).unwrap();
            let mut signature = [0; 64];
            signature[0] = 1;
            let bytes = [&MAGIC[..], &signature, &payload].concat();
            assert_eq!(SignedAnnounce::open(&bytes), Err(AnnounceError::Forged));
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_open(bytes in prop::collection::vec(any::<u8>(), 0..700), formed in any::<bool>()) {
            let mut bytes = bytes;
            if formed && bytes.len() > PAYLOAD_AT {
                bytes[..4].copy_from_slice(&MAGIC);
                bytes[PAYLOAD_AT] = Announce::VERSION;
            }
            prop_assert!(SignedAnnounce::open(&bytes).is_err());
        }

        #[test]
        fn no_flipped_bit_survives(bit in 0usize..8 * 150) {
            let keypair = Keypair::generate();
            let mut bytes = SignedAnnounce::seal(&announce(&keypair), &keypair).as_bytes().to_vec();
            let bit = bit % (8 * bytes.len());
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(SignedAnnounce::open(&bytes).is_err());
        }
    }
}
