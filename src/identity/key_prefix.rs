//! The beginning of a key, by which a person names a peer.

use std::fmt;
use std::str::FromStr;

use crate::identity::PeerId;

/// The first letters of a key's text, at least 12 behind `ed25519:`, which may be left out. A whole
/// key is one as well.
///
/// ```
/// use gpb::{KeyPrefix, Keypair};
///
/// let id = Keypair::generate().peer_id();
/// let prefix: KeyPrefix = id.to_string()[8..22].parse()?;
/// assert!(prefix.matches(&id));
/// # Ok::<(), gpb::error::ParseKeyPrefixError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPrefix(String);

/// Not the beginning of a key, or fewer than 12 letters of it.
///
/// ```
/// use gpb::KeyPrefix;
///
/// assert!("ana".parse::<KeyPrefix>().is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a key, nor at least {LETTERS_MIN} letters of one")]
pub struct ParseKeyPrefixError;

impl KeyPrefix {
    /// Whether `peer` has such a key.
    pub fn matches(&self, peer: &PeerId) -> bool {
        peer.to_string().strip_prefix(SCHEME).is_some_and(|key| key.starts_with(&self.0))
    }
}

impl From<PeerId> for KeyPrefix {
    fn from(peer: PeerId) -> Self {
        KeyPrefix(peer.to_string().trim_start_matches(SCHEME).to_owned())
    }
}

impl FromStr for KeyPrefix {
    type Err = ParseKeyPrefixError;

    fn from_str(text: &str) -> Result<Self, ParseKeyPrefixError> {
        let letters = text.strip_prefix(SCHEME).unwrap_or(text);
        let is_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=');
        if !(LETTERS_MIN..=KEY_LETTERS).contains(&letters.len()) || !letters.chars().all(is_letter) {
            return Err(ParseKeyPrefixError);
        }
        Ok(KeyPrefix(letters.to_owned()))
    }
}

impl fmt::Display for KeyPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.0)
    }
}

const SCHEME: &str = "ed25519:";
/// Fewer letters could be met by chance, or by trying keys.
const LETTERS_MIN: usize = 12;
/// Letters of a whole key: 32 bytes in padded base64.
const KEY_LETTERS: usize = 44;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_named_by_its_beginning() {
        let (a, b) = (PeerId([7; 32]), PeerId([8; 32]));
        let text = a.to_string();
        for prefix in [&text[..], &text[8..], &text[..20], &text[8..20]] {
            let prefix: KeyPrefix = prefix.parse().unwrap();
            assert!(prefix.matches(&a) && !prefix.matches(&b), "{prefix}");
        }
        assert!(KeyPrefix::from(a).matches(&a) && !KeyPrefix::from(a).matches(&b));
        for text in ["", "ed25519:", &text[8..19], "twelve letters", &format!("{text}="), "ed25519:ed25519:abcdef"] {
            assert_eq!(text.parse::<KeyPrefix>(), Err(ParseKeyPrefixError), "{text}");
        }
    }
}
