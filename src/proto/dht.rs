//! What a node keeps in a DHT of BitTorrent (BEP 5): the item of its key (BEP 44), and the names under
//! which items and groups are found.
//!
//! An item is the mutable item of the identity key. Its value is [`MAGIC`] and the postcard form of a
//! [`PeerHint`]: the sealed announce of the node, and where it answers. The signed bytes begin with
//! `4:salt`, in an announce with `gpb` and in TLS 1.3 with 64 spaces: no signature of one
//! kind is valid as another.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use crate::limits::{DHT_ADDRS_MAX, DHT_SECRET_LEN_MAX, DHT_SECRET_LEN_MIN, DHT_VALUE_LEN_MAX};
use crate::proto::{MessageError, PeerHint, SignedAnnounce, decode_body, encode_body};

/// What the nodes of a group know and others do not: without it their places in a DHT are not found.
/// 16 to 256 bytes; `Debug` does not show it.
///
/// ```
/// use gpb::DhtSecret;
///
/// let secret: DhtSecret = "3f1c7a60d9e84b25".parse()?;
/// assert_eq!(format!("{secret:?}"), "DhtSecret(..)");
/// assert!("short".parse::<DhtSecret>().is_err());
/// # Ok::<(), gpb::error::DhtSecretError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct DhtSecret(String);

/// Not 16 to 256 bytes: a short secret is guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a secret of {0} bytes; it has {DHT_SECRET_LEN_MIN} to {DHT_SECRET_LEN_MAX}")]
pub struct DhtSecretError(usize);

/// Under which names a group is found in a DHT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhtNames {
    /// The salt of the items of its keys, at most 64 bytes (BEP 44).
    pub salt: Vec<u8>,
    /// The info hash that an open group announces under.
    pub group: [u8; 20],
}

/// An item as it was found. Nothing of it is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhtItem {
    /// Its sequence number: Unix ms, forced to grow.
    pub seq: i64,
    /// What the key signed, besides salt and sequence number.
    pub value: Vec<u8>,
    /// The signature of [`signed_part`](DhtNames::signed_part).
    pub signature: [u8; 64],
}

impl DhtNames {
    /// The names of the group in `network`. With another secret, or none, they are others.
    pub fn new(network: &str, secret: Option<&DhtSecret>) -> Self {
        let digest = |domain: &[u8]| -> [u8; 32] {
            let mut hash = Sha256::new();
            let secret = secret.map_or("", |secret| &secret.0);
            for part in [domain, network.as_bytes(), secret.as_bytes()] {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            }
            hash.finalize().into()
        };
        let salt = [SALT, &digest(b"gpb dht item v1")].concat();
        let [group @ .., _, _, _, _, _, _, _, _, _, _, _, _] = digest(b"gpb dht group v1");
        DhtNames { salt, group }
    }

    /// The bytes that the signature of an item covers (BEP 44).
    pub fn signed_part(&self, seq: i64, value: &[u8]) -> Vec<u8> {
        let head = format!("4:salt{}:", self.salt.len());
        let middle = format!("3:seqi{seq}e1:v{}:", value.len());
        [head.as_bytes(), &self.salt, middle.as_bytes(), value].concat()
    }
}

/// The value of an item: the announce of the node, and the first [`DHT_ADDRS_MAX`] of `addrs`.
pub fn encode_dht_value(announce: &SignedAnnounce, addrs: &[SocketAddr]) -> Vec<u8> {
    let addrs = addrs.iter().take(DHT_ADDRS_MAX).copied().collect();
    let hint = PeerHint { announce: announce.as_bytes().to_vec(), addrs };
    [&MAGIC[..], &encode_body(&hint)].concat()
}

/// Reads the value of an item. Its announce is checked elsewhere.
///
/// # Errors
/// [`MessageError`]: over [`DHT_VALUE_LEN_MAX`] bytes, or of another form.
pub fn decode_dht_value(value: &[u8]) -> Result<PeerHint, MessageError> {
    let body = value.strip_prefix(&MAGIC[..]).filter(|_| value.len() <= DHT_VALUE_LEN_MAX);
    decode_body(body.unwrap_or_default(), "DhtItem").and_then(|hint: PeerHint| {
        let malformed = MessageError::Malformed("DhtItem");
        if hint.addrs.len() <= DHT_ADDRS_MAX { Ok(hint) } else { Err(malformed) }
    })
}

impl FromStr for DhtSecret {
    type Err = DhtSecretError;

    fn from_str(text: &str) -> Result<Self, DhtSecretError> {
        let fits = (DHT_SECRET_LEN_MIN..=DHT_SECRET_LEN_MAX).contains(&text.len());
        if fits { Ok(DhtSecret(text.into())) } else { Err(DhtSecretError(text.len())) }
    }
}

impl fmt::Debug for DhtSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DhtSecret(..)")
    }
}

/// First bytes of the value of an item.
const MAGIC: [u8; 4] = *b"GPBi";
/// First bytes of the salt.
const SALT: &[u8] = b"gpb";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::identity::Keypair;
    use crate::proto::announce;

    fn largest(keypair: &Keypair) -> SignedAnnounce {
        SignedAnnounce::seal(&announce::tests::largest(keypair), keypair)
    }

    #[test]
    fn the_largest_value_fits_and_is_read_back() {
        let announce = largest(&Keypair::generate());
        let addr: SocketAddr = "[2001:db8:1:2:3:4:5:6]:65535".parse().unwrap();
        let value = encode_dht_value(&announce, &[addr; DHT_ADDRS_MAX + 3]);
        assert!(value.len() <= DHT_VALUE_LEN_MAX, "{}", value.len());
        let read = decode_dht_value(&value).unwrap();
        assert_eq!((read.announce.as_slice(), read.addrs), (announce.as_bytes(), vec![addr; DHT_ADDRS_MAX]));
        for n in 0..value.len() {
            assert!(decode_dht_value(&value[..n]).is_err(), "cut to {n}");
        }
        let many = PeerHint { announce: vec![], addrs: vec![addr; DHT_ADDRS_MAX + 1] };
        assert!(decode_dht_value(&[&MAGIC[..], &encode_body(&many)].concat()).is_err());
        let long = PeerHint { announce: vec![0; DHT_VALUE_LEN_MAX], addrs: vec![addr] };
        assert!(decode_dht_value(&[&MAGIC[..], &encode_body(&long)].concat()).is_err());
    }

    #[test]
    fn each_network_and_each_secret_has_names_of_its_own() {
        let [one, two] = ["0123456789abcdef", "0123456789abcdeg"].map(|s| s.parse::<DhtSecret>().unwrap());
        let plain = DhtNames::new("gpb", None);
        let others = [DhtNames::new("lab", None), DhtNames::new("gpb", Some(&one)), DhtNames::new("gpb", Some(&two))];
        for (n, other) in others.iter().enumerate() {
            let before = others[..n].iter().chain([&plain]);
            assert!(before.into_iter().all(|b| b.salt != other.salt && b.group != other.group), "{n}");
        }
        assert_eq!(plain, DhtNames::new("gpb", None));
        assert!(plain.salt.len() <= 64, "the bound of BEP 44");
        // What ends a network name and what begins a secret is not the same to the hash.
        let moved = DhtNames::new("gpb0", Some(&"123456789abcdef-".parse().unwrap()));
        assert_ne!(moved, DhtNames::new("gpb", Some(&"0123456789abcdef-".parse().unwrap())));
    }

    /// The identity key signs announces and the handshakes of TLS, too.
    #[test]
    fn a_signature_of_an_item_is_none_of_an_announce_and_none_of_a_handshake() {
        let signed = DhtNames::new("gpb", None).signed_part(7, b"value");
        assert!(signed.starts_with(b"4:salt35:gpb") && signed.ends_with(b"3:seqi7e1:v5:value"));
        let keypair = Keypair::generate();
        let (announce, key) = (largest(&keypair), keypair.peer_id());
        let of_announce: &[u8; 64] = announce.as_bytes()[4..68].try_into().unwrap();
        assert!(!key.verify(&DhtNames::new("gpb", None).signed_part(7, &announce.as_bytes()[68..]), of_announce));
    }

    #[test]
    fn short_secrets_are_refused() {
        for (len, fits) in [(0, false), (15, false), (16, true), (256, true), (257, false)] {
            assert_eq!("s".repeat(len).parse::<DhtSecret>().is_ok(), fits, "{len}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..1200), formed in any::<bool>()) {
            let bytes = if formed { [&MAGIC[..], &bytes].concat() } else { bytes };
            if let Ok(hint) = decode_dht_value(&bytes) {
                prop_assert!(hint.addrs.len() <= DHT_ADDRS_MAX && hint.announce.len() < DHT_VALUE_LEN_MAX);
            }
        }
    }
}
