//! The public name of a peer.

use std::fmt;
use std::str::FromStr;

use base64ct::{Base64, Encoding};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A peer's Ed25519 public key. Written everywhere as `ed25519:` and the padded standard base64 of
/// its 32 bytes.
///
/// Any 32 bytes can be a `PeerId`; whether they are a usable key shows when a signature is checked
/// against them.
///
/// ```
/// use gpb::{Keypair, PeerId};
///
/// let id = Keypair::generate().peer_id();
/// assert_eq!(id.to_string().parse::<PeerId>()?, id);
/// assert!(id.to_string().starts_with("ed25519:"));
/// # Ok::<(), gpb::error::ParsePeerIdError>(())
/// ```
///
/// With `serde` it is its text in readable formats such as JSON, and its 32 bytes in others.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub [u8; 32]);

/// Not `ed25519:` and the padded base64 of 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not of the form ed25519:<base64 of 32 bytes>")]
pub struct ParsePeerIdError;

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; 44];
        let text = Base64::encode(&self.0, &mut text).map_err(|_| fmt::Error)?;
        f.pad(&format!("{PREFIX}{text}"))
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PeerId {
    type Err = ParsePeerIdError;

    fn from_str(s: &str) -> Result<Self, ParsePeerIdError> {
        let text = s.strip_prefix(PREFIX).ok_or(ParsePeerIdError)?;
        let mut bytes = [0u8; 32];
        match Base64::decode(text, &mut bytes) {
            Ok(all) if all.len() == 32 => Ok(PeerId(bytes)),
            _ => Err(ParsePeerIdError),
        }
    }
}

impl Serialize for PeerId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() { to.collect_str(self) } else { self.0.serialize(to) }
    }
}

impl<'de> Deserialize<'de> for PeerId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if from.is_human_readable() {
            return String::deserialize(from)?.parse().map_err(D::Error::custom);
        }
        <[u8; 32]>::deserialize(from).map(PeerId)
    }
}

const PREFIX: &str = "ed25519:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text_form() {
        let id = PeerId([0xfb; 32]);
        assert_eq!(id.to_string(), "ed25519:+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/s=");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn readable_formats_have_the_text_and_others_the_bytes() {
        let id = PeerId([0xfb; 32]);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<PeerId>(&json).unwrap(), id);
        assert!(serde_json::from_str::<PeerId>("\"ed25519:x\"").is_err());
        let bytes = postcard::to_stdvec(&id).unwrap();
        assert_eq!((bytes.as_slice(), postcard::from_bytes(&bytes)), (&id.0[..], Ok(id)));
    }

    #[test]
    fn other_texts_are_no_ids() {
        let good = PeerId([7; 32]).to_string();
        let unpadded = good.trim_end_matches('=');
        for s in ["", "ed25519:", "rsa:AAAA", unpadded, &good[8..], &format!("{good} "), &good.replace("ed", "Ed")] {
            assert_eq!(s.parse::<PeerId>(), Err(ParsePeerIdError), "{s:?}");
        }
    }
}
