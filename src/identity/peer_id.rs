//! The public name of a peer.

use std::fmt;
use std::str::FromStr;

use base64ct::{Base64, Encoding};
use serde::{Deserialize, Serialize};

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
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
    fn other_texts_are_no_ids() {
        let good = PeerId([7; 32]).to_string();
        let unpadded = good.trim_end_matches('=');
        for s in ["", "ed25519:", "rsa:AAAA", unpadded, &good[8..], &format!("{good} "), &good.replace("ed", "Ed")] {
            assert_eq!(s.parse::<PeerId>(), Err(ParsePeerIdError), "{s:?}");
        }
    }
}
